"""Strided, transposed and dilated convolutions as others, for every backend's own choice."""

import dataclasses

import jax.numpy as jnp
from jax import lax

_NONE = 1, 1


@dataclasses.dataclass(frozen=True)
class Form:
    """Of a convolution: arguments of `jax.lax.conv_general_dilated`, two numbers each.

    Attributes:
      kernel: taps.
      strides: of the kernel.
      padding: two pairs, before and after.
      dilation: of the kernel.
      spread: dilation of the image.
    """

    kernel: tuple
    strides: tuple = _NONE
    padding: tuple = ((1, 1), (1, 1))
    dilation: tuple = _NONE
    spread: tuple = _NONE

    @classmethod
    def of(cls, kernel, window_strides, padding, options):
        """By the arguments."""
        return cls(
            kernel.shape[:2],
            tuple(window_strides),
            tuple(map(tuple, padding)),
            tuple(options.get("rhs_dilation") or _NONE),
            tuple(options.get("lhs_dilation") or _NONE),
        )

    def splits(self, x) -> bool:
        """Whether it is one without dilation of each of `phases(x, dilation[0])`."""
        d = self.dilation[0]
        around = tuple((d * (k // 2), d * (k // 2)) for k in self.kernel)
        like = Form(self.kernel, padding=around, dilation=(d, d))
        return (
            self == like
            and all(k % 2 for k in self.kernel)
            and not any(n % d for n in x.shape[1:3])
        )


TRANSPOSED = Form((3, 3), padding=((1, 2), (1, 2)), spread=(2, 2))
"""What `transposed` computes."""


def split(x, d):
    """x [B, H, W, C] by every d-th row and column: [B, H / d, d, W / d, d, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // d, d, width // d, d, channels)


def joined(x):
    """Undoes `split`."""
    batch, height, d, width, _, channels = x.shape
    return x.reshape(batch, height * d, width * d, channels)


def phases(x, d):
    """The images of every d-th row and column: x [B, H, W, C] -> [d d B, H / d, W / d, C]."""
    height, width, channels = x.shape[1] // d, x.shape[2] // d, x.shape[3]
    return split(x, d).transpose(0, 2, 4, 1, 3, 5).reshape(-1, height, width, channels)


def whole(x, d):
    """Undoes `phases`."""
    return joined(x.reshape(-1, d, d, *x.shape[1:]).transpose(0, 3, 1, 4, 2, 5))


def strided(x, kernel, padding):
    """A convolution at stride 2 as one at stride 1, unpadded, of arrays with 4 times the channels.

    With q in a cell,

      y[i] = sum_{t, q} x[2 (i + t) + q] W[2 t + q]

    Returns:
      The x [batch, cells, cells, 4 channels] and kernel of that one.
    """
    size = x.shape[1:3]
    taps = [-(-k // 2) for k in kernel.shape[:2]]  # cells
    out = [(n + sum(p) - k) // 2 + 1 for n, p, k in zip(size, padding, kernel.shape, strict=False)]
    cells = [o + t - 1 for o, t in zip(out, taps, strict=True)]
    grow = [(p[0], 2 * c - n - p[0], 0) for n, p, c in zip(size, padding, cells, strict=True)]
    none = (0, 0, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), (none, *grow, none))
    grow = [(0, 2 * t - k) for t, k in zip(taps, kernel.shape, strict=False)]
    return in_cells(x), _kernel_in_cells(jnp.pad(kernel, (*grow, (0, 0), (0, 0))))


def four_pixels_at_once(x, kernel):
    """An unpadded convolution as one over cells of 2x2 pixels, with the features of 2x2 pixels.

    With t = 2 u + q - p,

      y[2 i + p] = sum_t x[2 i + p + t] W[t] = sum_{u, q} x[2 (i + u) + q] W[2 u + q - p]

    Args:
      x: [B, H, W, C].
      kernel: [k, l, C, F]; H - k + 1 and W - l + 1, the size of y, are even.

    Returns:
      The x [B, cells, cells, 4 C] and kernel [ceil((k + 1) / 2), ceil((l + 1) / 2), 4 C, 4 F] of
      that one; `joined_cells` of its values are y.
    """
    x = jnp.pad(x, [(0, n % 2 if axis in (1, 2) else 0) for axis, n in enumerate(x.shape)])
    taps = [n + 1 + (n + 1) % 2 for n in kernel.shape[:2]]  # a whole number of cells

    def moved(p):
        grow = [(a, n - k - a) for a, n, k in zip(p, taps, kernel.shape, strict=False)]
        return jnp.pad(kernel, (*grow, (0, 0), (0, 0)))

    kernels = jnp.stack([moved(p) for p in ((0, 0), (0, 1), (1, 0), (1, 1))], -2)
    return in_cells(x), _kernel_in_cells(kernels.reshape(*kernels.shape[:3], -1))


def transposed(x, kernel):
    """A transposed convolution to twice the size (see `TRANSPOSED`) as a matrix product."""
    height, width = x.shape[1:3]
    x, kernel = transposed_by_cells(x, kernel)
    near = [x[:, a : a + height, b : b + width] for a in (0, 1) for b in (0, 1)]
    kernel = kernel.reshape(-1, kernel.shape[-1])
    rows = jnp.concatenate(near, -1).reshape(-1, len(kernel))
    return joined_cells((rows @ kernel).reshape(x.shape[0], height, width, -1))


def transposed_by_cells(x, kernel):
    """A transposed convolution (see `TRANSPOSED`) as an unpadded one to 2x2 pixels at once.

    Pixel 2 i + p of the output y meets pixel i + o of the input under tap 2 o + 1 - p.

    Args:
      x: [B, h, w, C].
      kernel: [3, 3, C, F].

    Returns:
      The x [B, h + 1, w + 1, C] and kernel [2, 2, C, 4 F] of that one; `joined_cells` of its values
      are y.
    """
    taps = jnp.array([1, 0, 3, 2])  # (o, p) in order; there is no tap 3
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))[taps][:, taps]
    kernel = kernel.reshape(2, 2, 2, 2, x.shape[-1], -1).transpose(0, 2, 4, 1, 3, 5)
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return x, kernel.reshape(2, 2, x.shape[-1], -1)


def in_cells(x):
    """x [B, 2 h, 2 w, C] by cells of 2x2 pixels: [B, h, w, 4 C]."""
    x = split(x, 2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(*x.shape[:3], -1)


def joined_cells(y):
    """Undoes `in_cells`."""
    return joined(y.reshape(*y.shape[:3], 2, 2, -1).transpose(0, 1, 3, 2, 4, 5))


def _kernel_in_cells(kernel):
    """A kernel [2 k, 2 l, C, F] for `in_cells`: [k, l, 4 C, F]."""
    rows, columns, channels, features = kernel.shape
    kernel = kernel.reshape(rows // 2, 2, columns // 2, 2, channels, features).transpose(
        0, 2, 1, 3, 4, 5
    )
    return kernel.reshape(rows // 2, columns // 2, 4 * channels, features)
