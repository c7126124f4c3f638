"""Convolution for CPUs, as matrix products where XLA's own CPU convolution is slow.

XLA's CPU backend convolves well at stride 1 with 3x3 kernels, but a 1x1 kernel takes it several
times as long as the matrix product that it is, and the gradients of strided convolutions, which
are convolutions of dilated arrays, several times as long as products with gathered patches:

  y[n, i, j, :] = sum_{a, b} x[n, s i + d a - p, s j + d b - p, :] W[a, b]

For each (a, b) the x at all (i, j) are one strided slice of the padded input; the slices side by
side are the rows of a matrix [N h w, k k C], W is [k k C, D], and both gradients are matrix
products too. It replaces `jax.lax.conv_general_dilated` in Flax's layers (see
`layers.Layers.conv_general_dilated`); GPUs and TPUs keep the original.
"""

import jax
import jax.numpy as jnp
from jax import lax

_MANY_TAPS = 9  # a 7x7 kernel's patches would cost more memory traffic than they save


def conv_general_dilated(x, kernel, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated` for NHWC images and HWIO kernels; same values to rounding."""
    height, width = kernel.shape[:2]
    strided = max(window_strides) > 1
    plain = options.get("feature_group_count", 1) == 1 and not isinstance(padding, str)
    if plain and (height * width == 1 or (strided and height * width <= _MANY_TAPS)):
        dilation = options.get("rhs_dilation") or (1, 1)
        return _by_patches(x, kernel, window_strides, padding, dilation)
    return lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


def for_backend():
    """The replacement on a CPU, None (the original) elsewhere."""
    return conv_general_dilated if jax.default_backend() == "cpu" else None


def _by_patches(x, kernel, strides, padding, dilation):
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, height, width, channels = x.shape
    taps = kernel.shape[:2]
    reach = [(k - 1) * d for k, d in zip(taps, dilation, strict=True)]
    out = [(n - r - 1) // s + 1 for n, r, s in zip((height, width), reach, strides, strict=True)]
    patches = []
    for a in range(taps[0]):
        for b in range(taps[1]):
            start = a * dilation[0], b * dilation[1]
            stop = [f + (o - 1) * s + 1 for f, o, s in zip(start, out, strides, strict=True)]
            patches.append(lax.slice(x, (0, *start, 0), (batch, *stop, channels), (1, *strides, 1)))
    rows = jnp.concatenate(patches, -1).reshape(-1, len(patches) * channels)
    return (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(batch, *out, -1)
