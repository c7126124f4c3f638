"""Convolution for CPUs, in other words where XLA's own CPU convolution is slow.

A 1x1 kernel takes XLA's CPU backend several times as long as the matrix product that it is, and
the gradients of strided and of transposed convolutions, which are convolutions of dilated arrays,
longer still. 3x3 kernels at stride 1 it computes as fast as their definition allows. Instead,

- 3x3 kernels, strided, dilated and transposed ones too, take fewer products than their definition
  (`winograd.py`), but for small layers;
- elsewhere few taps are a matrix product with the patches under them (`_by_patches`):

    y[n, i, j, :] = sum_{a, b} x[n, s i + d a - p, s j + d b - p, :] W[a, b]

  For each (a, b) the x at all (i, j) are one strided slice of the padded input; the slices side by
  side are the rows of a matrix [N h w, k k C], W is [k k C, D], and both gradients are matrix
  products too;
- 7x7 taps at stride 2 are 4x4 at stride 1 over cells of 2x2 pixels (`forms.strided`);
- depthwise kernels are sums of those slices times a number a channel (`_by_channels`);
- transposed 3x3 kernels of small layers are a matrix product with cells of 2x2 pixels
  (`forms.transposed`).

It replaces `jax.lax.conv_general_dilated` in Flax's layers (see
`layers.Layers.conv_general_dilated`).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vireid_jax.models import cpu_products, forms, winograd

_ENOUGH = 2.5e6  # products of a tap, from which on Winograd's form is worth its compilation
_NHWC = "NHWC", "HWIO", "NHWC"
_MANY_TAPS = 9  # more patches would cost more memory traffic than they save


def conv_general_dilated(x, kernel, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated` for NHWC images and HWIO kernels; same values to rounding.

    Precision and result type are the default ones wherever it computes in other words.
    """
    form = forms.Form.of(kernel, window_strides, padding, options)
    groups, taps = options.get("feature_group_count", 1), math.prod(form.kernel)
    if groups == x.shape[-1] == kernel.shape[-1] and form.spread == (1, 1):
        return _by_channels(x, kernel, form.strides, form.padding, form.dilation)
    if groups == 1:
        rules = winograd.rules_for(form, x)
        if rules and _winograd_pays(form, x, kernel):
            return winograd.conv3x3(x, kernel, rules, form.dilation[0])
        if form == forms.TRANSPOSED:
            return forms.transposed(x, kernel)
        if form.spread == (1, 1) and (taps == 1 or (max(form.strides) > 1 and taps <= _MANY_TAPS)):
            return _by_patches(x, kernel, form.strides, form.padding, form.dilation)
        if form.spread == form.dilation == (1, 1) and form.strides == (2, 2):
            return lax.conv_general_dilated(
                *forms.strided(x, kernel, padding), (1, 1), "VALID", dimension_numbers=_NHWC
            )
    return lax.conv_general_dilated(x, kernel, window_strides, padding, **options)


def _winograd_pays(form, x, kernel):
    exact = x.dtype in (jnp.float32, jnp.float64)  # in half precision its sums lose too much
    return exact and x.size // math.prod(form.strides) * kernel.shape[-1] >= _ENOUGH


def _by_patches(x, kernel, strides, padding, dilation):
    patches = _patches(x, kernel, strides, padding, dilation)
    # The kernel's gradient of a product of more axes would be one of transposed copies.
    rows = jnp.concatenate([x.reshape(-1, x.shape[-1]) for x in patches], -1)
    y = cpu_products.product(rows, kernel.reshape(-1, kernel.shape[-1]))
    return y.reshape(*patches[0].shape[:-1], -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_channels(x, kernel, strides, padding, dilation):
    patches = _patches(x, kernel, strides, padding, dilation)
    return sum(x * w for x, w in zip(patches, kernel.reshape(-1, x.shape[-1]), strict=True))


def _by_channels_forward(x, kernel, *options):
    return _by_channels(x, kernel, *options), (x, kernel)


def _by_channels_backward(strides, padding, dilation, kept, dy):
    """Both gradients are sums over slices too; XLA's own would add nine padded arrays."""
    x, kernel = kept
    # XLA would compute dy, and what it comes from, again for each tap. It writes a roll to memory,
    # and the sum over the batch stays what it is.
    x, dy = jnp.roll(x, 1, 0), jnp.roll(dy, 1, 0)
    patches = _patches(x, kernel, strides, padding, dilation)
    # Summed over the batch first, in one long row: XLA is slow at sums of columns.
    dw = jnp.stack([(patch * dy).sum(0) for patch in patches]).sum((1, 2))
    # x lies under y as y does under a kernel turned by half a turn, at stride 1.
    margins = [
        (d * (k - 1) - p[0], n - (s * (m - 1) + 1) + p[0], s - 1)
        for n, m, k, s, d, p in zip(
            x.shape[1:3], dy.shape[1:3], kernel.shape, strides, dilation, padding, strict=False
        )
    ]
    none = (0, 0, 0)
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), (none, *margins, none))
    dx = _by_channels(
        jnp.roll(spread, -1, 0), kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0)), dilation
    )
    return dx, dw.reshape(kernel.shape)


_by_channels.defvjp(_by_channels_forward, _by_channels_backward)


def _patches(x, kernel, strides, padding, dilation):
    """The x under each tap at all places, [batch, h, w, channels] each."""
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
    return patches
