"""Convolution in half precision for GPUs, in other words where XLA leaves tensor cores idle.

- Tensor cores take eight channels at a time. XLA leaves other counts to cuDNN, which copies images,
  kernels and results to padded ones and back. Zero channels that are part of the program are
  written by what computes the image anyway.
- 7x7 taps at stride 2 of three channels are 4x4 at stride 1 of twelve (`cells.strided`).
- The gradient of a dilated or transposed convolution's kernel is to XLA a convolution by a kernel
  as large as the image. Instead, it is computed as that of the undilated convolution over the
  images of every d-th pixel, and of a matrix product (`cells.transposed`).

Like `cpu_convolution.py`, it replaces `jax.lax.conv_general_dilated` in Flax's layers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vireid_jax.models import cells

_TOGETHER = 8  # channels
_FEW = 4


def conv_general_dilated(x, kernel, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated` for NHWC images and HWIO kernels; same values to rounding."""
    grouped = options.get("feature_group_count", 1) > 1
    convolve = lax.conv_general_dilated if grouped or x.dtype.itemsize > 2 else in_other_words
    return convolve(x, kernel, window_strides, padding, **options)


def in_other_words(x, kernel, window_strides, padding, **options):
    """The same for any precision, and for all channels together."""
    size, strides = kernel.shape[:2], tuple(window_strides)
    padding = tuple(map(tuple, padding))
    dilation = tuple(options.get("rhs_dilation") or (1, 1))
    spread = tuple(options.get("lhs_dilation") or (1, 1))
    plain = partial(lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    form = {"kernel": size, "padding": padding, "lhs_dilation": spread}
    if form == cells.TRANSPOSED and strides == dilation == (1, 1):
        return _with_gradient_of(cells.transposed, plain)(x, kernel)
    if spread == (1, 1) and strides == (2, 2) and dilation == (1, 1) and x.shape[-1] < _FEW:
        x, kernel = cells.strided(x, kernel, padding)
        plain = partial(plain, window_strides=(1, 1), padding="VALID")
    elif spread == strides == (1, 1) and _splits(x, kernel, padding, dilation):
        plain = _with_gradient_of(partial(_by_phases, dilation[0], options), plain)
    return _aligned(plain, x, kernel)


def _aligned(convolve, x, kernel):
    """`convolve`, with zero channels up to whole multiples of what is computed together."""
    *_, channels, features = kernel.shape
    more, further = [(0, -n % _TOGETHER) for n in (channels, features)]
    none = (0, 0)
    x = jnp.pad(x, (none, none, none, more))
    return convolve(x, jnp.pad(kernel, (none, none, more, further)))[..., :features]


def _splits(x, kernel, padding, dilation):
    """Whether `_by_phases` computes this."""
    d = dilation[0]
    reach = [d * (k // 2) for k in kernel.shape[:2]]
    same = dilation == (d, d) and padding == tuple((r, r) for r in reach)
    return same and d > 1 and not any(n % d for n in x.shape[1:3])


def _by_phases(d, options, x, kernel):
    """A convolution with dilation `d`, of the images of every d-th pixel."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // d, d, width // d, d, channels).transpose(0, 2, 4, 1, 3, 5)
    x = x.reshape(-1, height // d, width // d, channels)
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    y = lax.conv_general_dilated(x, kernel, (1, 1), padding, **options | {"rhs_dilation": (1, 1)})
    y = y.reshape(batch, d, d, height // d, width // d, -1).transpose(0, 3, 1, 4, 2, 5)
    return y.reshape(batch, height, width, -1)


def _with_gradient_of(other, convolve):
    """`convolve`, whose kernel gets the gradient of `other`, which has the same values."""

    @jax.custom_vjp
    def run(x, kernel):
        return convolve(x, kernel)

    def backward(kept, dy):
        x, kernel = kept
        (dx,) = jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)
        (dkernel,) = jax.vjp(lambda kernel: other(x, kernel), kernel)[1](dy)
        return dx, dkernel

    run.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), backward)
    return run
