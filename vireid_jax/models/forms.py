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
    batch, *size, channels = x.shape
    taps = [-(-k // 2) for k in kernel.shape[:2]]  # cells
    out = [(n + sum(p) - k) // 2 + 1 for n, p, k in zip(size, padding, kernel.shape, strict=False)]
    cells = [o + t - 1 for o, t in zip(out, taps, strict=True)]
    grow = [(p[0], 2 * c - n - p[0], 0) for n, p, c in zip(size, padding, cells, strict=True)]
    none = (0, 0, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), (none, *grow, none))
    x = x.reshape(batch, cells[0], 2, cells[1], 2, channels).transpose(0, 1, 3, 2, 4, 5)
    grow = [(0, 2 * t - k) for t, k in zip(taps, kernel.shape, strict=False)]
    kernel = jnp.pad(kernel, (*grow, (0, 0), (0, 0)))
    kernel = kernel.reshape(taps[0], 2, taps[1], 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    return x.reshape(*x.shape[:3], -1), kernel.reshape(*taps, 4 * channels, -1)


def by_blocks(x, kernel):
    """An unpadded convolution as one whose every pixel is a block of 2x2 of the other's.

    With t = 2 u + q - p,

      y[2 i + p] = sum_t x[2 i + p + t] W[t] = sum_{u, q} x[2 (i + u) + q] W[2 u + q - p]

    Sizes of y are even.

    Returns:
      The x [batch, cells, cells, 4 channels] and kernel of that one; `joined_cells` of its values
      are y.
    """
    batch, height, width, channels = x.shape
    cells = [-(-n // 2) for n in (height, width)]
    grow = [(0, 2 * c - n) for c, n in zip(cells, (height, width), strict=True)]
    x = jnp.pad(x, [(0, 0), *grow, (0, 0)])
    x = x.reshape(batch, cells[0], 2, cells[1], 2, channels).transpose(0, 1, 3, 2, 4, 5)
    taps = [-(-(k + 1) // 2) for k in kernel.shape[:2]]
    moved = [
        jnp.pad(
            kernel,
            [
                *((p, 2 * t - k - p) for p, t, k in zip(at, taps, kernel.shape, strict=False)),
                (0, 0),
                (0, 0),
            ],
        )
        for at in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    kernel = jnp.stack(moved, -2).reshape(taps[0], 2, taps[1], 2, channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, 4 * channels, -1)
    return x.reshape(*x.shape[:3], -1), kernel


def transposed(x, kernel):
    """A transposed convolution to twice the size (see `TRANSPOSED`) as a matrix product."""
    height, width = x.shape[1:3]
    x, kernel = by_cells(x, kernel)
    near = [x[:, a : a + height, b : b + width] for a in (0, 1) for b in (0, 1)]
    return joined_cells(jnp.concatenate(near, -1) @ kernel.reshape(-1, kernel.shape[-1]))


def by_cells(x, kernel):
    """A transposed convolution (see `TRANSPOSED`) as an unpadded one, 2x2 pixels at once.

    Pixel 2 i + p of the output y meets pixel i + o of the input under tap 2 o + 1 - p.

    Returns:
      The x and kernel [2, 2, C, 4 features] of that one; `joined_cells` of its values are y.
    """
    taps = jnp.array([1, 0, 3, 2])  # (o, p) in order; there is no tap 3
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))[taps][:, taps]
    kernel = kernel.reshape(2, 2, 2, 2, x.shape[-1], -1).transpose(0, 2, 4, 1, 3, 5)
    x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return x, kernel.reshape(2, 2, x.shape[-1], -1)


def joined_cells(y):
    """y [B, h, w, 4 C] of cells of 2x2 pixels -> [B, 2 h, 2 w, C]."""
    return joined(y.reshape(*y.shape[:3], 2, 2, -1).transpose(0, 1, 3, 2, 4, 5))
