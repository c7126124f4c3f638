"""Convolution in half precision for GPUs, in other words where XLA leaves tensor cores idle.

- Tensor cores take eight channels at a time. XLA leaves other counts to cuDNN, which copies images,
  kernels and results to padded ones and back. Zero channels that are part of the program are
  written by what computes the image anyway.
- 7x7 taps at stride 2 of three channels are 4x4 at stride 1 of twelve (`forms.strided`).
- XLA has cuDNN's kernel gradients for plain convolutions alone. That of a dilated one is here the
  gradient of one without dilation over the images of every d-th pixel (`forms.phases`), that of a
  transposed one the gradient of a matrix product (`forms.transposed`).

Like `cpu_convolution.py`, it replaces `jax.lax.conv_general_dilated` in Flax's layers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from vireid_jax.models import forms

_TOGETHER = 8  # channels
_COLOURS = 3


def conv_general_dilated(x, kernel, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated` for NHWC images and HWIO kernels; same values to rounding."""
    convolve = lax.conv_general_dilated if x.dtype.itemsize > 2 else in_other_words
    return convolve(x, kernel, window_strides, padding, **options)


def in_other_words(x, kernel, window_strides, padding, **options):
    """The same in any precision."""
    form = forms.Form.of(kernel, window_strides, padding, options)
    plain = partial(
        lax.conv_general_dilated, window_strides=form.strides, padding=form.padding, **options
    )
    if options.get("feature_group_count", 1) > 1:
        return plain(x, kernel)
    if form == forms.TRANSPOSED:
        return _with_gradient_of(forms.transposed, plain)(x, kernel)
    if form == forms.Form(form.kernel, (2, 2), form.padding) and x.shape[-1] == _COLOURS:
        x, kernel = forms.strided(x, kernel, padding)
        plain = partial(plain, window_strides=(1, 1), padding="VALID")
    elif form.dilation != (1, 1) and form.splits(x):
        plain = _with_gradient_of(partial(_by_phases, form, options), plain)
    return _aligned(plain, x, kernel)


def _aligned(convolve, x, kernel):
    """`convolve`, with zero channels up to whole multiples of what is computed together."""
    *_, channels, features = kernel.shape
    more, further = [(0, -n % _TOGETHER) for n in (channels, features)]
    none = (0, 0)
    x = jnp.pad(x, (none, none, none, more))
    return convolve(x, jnp.pad(kernel, (none, none, more, further)))[..., :features]


def _by_phases(form, options, x, kernel):
    """A convolution that `splits`."""
    d, around = form.dilation[0], [(k // 2, k // 2) for k in form.kernel]
    x, plain = forms.phases(x, d), options | {"rhs_dilation": (1, 1)}
    return forms.whole(lax.conv_general_dilated(x, kernel, (1, 1), around, **plain), d)


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
