"""Convolution in half precision for GPUs, in other words where XLA leaves tensor cores idle.

- Tensor cores take eight channels at a time. XLA leaves other counts to cuDNN, which copies images,
  kernels and results to padded ones and back. Zero channels that are part of the program are
  written by what computes the image anyway.
- Features come in tiles of 128, and one more than a whole number of them costs a tile. The last
  few of 129 or 258 are matrix products of every pixel with all taps, whose results are added; so is
  a single heatmap.
- 7x7 taps at stride 2 of three channels are 4x4 at stride 1 of twelve (`forms.strided`), and those
  are 3x3 of 48, four pixels at once (`forms.four_pixels_at_once`), whose features fill a tile.
- XLA has a transposed convolution multiply with zeros. Here it is one of 2x2 taps, four pixels at
  once (`forms.transposed_by_cells`).
- XLA has cuDNN's kernel gradients for plain convolutions alone. That of a dilated one is here the
  gradient of one without dilation over the images of every d-th pixel (`forms.phases`), that of a
  transposed one the gradient of a matrix product (`forms.transposed`), which is quicker for 1x1
  taps too.
- cuDNN's kernels and their gradients lie in memory with the features first. XLA would compute the
  optimiser's update in that order, transposing parameters and momentum, not the gradient alone.

Like `cpu_convolution.py`, it replaces `jax.lax.conv_general_dilated` in Flax's layers.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from vireid_jax.models import forms

_TOGETHER = 8  # channels
_COLOURS = 3
_TILE = 128  # features that one program of cuDNN's computes at a time, or more
_FEW = 4  # features beyond whole tiles, at most
_THREE_BY_THREE = forms.Form((3, 3)), forms.Form((3, 3), (2, 2))
_NHWC = "NHWC", "HWIO", "NHWC"


def conv_general_dilated(x, kernel, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated` for NHWC images and HWIO kernels; same values to rounding.

    Precision and result type are the default ones wherever it computes in other words.
    """
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
    kernel = _row_major_gradient(kernel)
    few = kernel.shape[-1] % _TILE
    if form in _THREE_BY_THREE and 0 < few <= _FEW:
        return _in_two(form.strides, few, plain, x, kernel)
    if form == forms.TRANSPOSED:
        return _with_gradient_of(forms.transposed, plain, _transposed)(x, kernel)
    if form == forms.Form(form.kernel, (2, 2), form.padding) and x.shape[3] == _COLOURS:
        return _unpadded(*forms.strided(x, kernel, padding))
    if form.dilation != (1, 1) and form.splits(x):
        plain = _with_gradient_of(partial(_by_phases, form, options), plain)
    elif form == forms.Form((1, 1), form.strides, ((0, 0), (0, 0))):
        plain = _with_gradient_of(partial(_product, form.strides), plain)
    return _aligned(plain, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _in_two(strides, few, plain, x, kernel):
    """The last `few` features apart from whole tiles: with them cuDNN would compute a tile more.

    x [B, H, W, C] and kernel [3, 3, C, F], where F may be `few`.
    """
    x, kernel = _whole_multiple(x, 3), _whole_multiple(kernel, 2)
    y = _summed(strides, _products(x, _by_taps(kernel[..., -few:])))
    parts = [y.astype(x.dtype)]
    if few < kernel.shape[-1]:
        parts.insert(0, plain(x, kernel[..., :-few]))
    return jnp.concatenate(parts, -1)


def _in_two_forward(strides, few, plain, x, kernel):
    return _in_two(strides, few, plain, x, kernel), (x, kernel)


def _in_two_backward(strides, few, plain, kept, dy):
    x, kernel = kept
    if strides == (1, 1):
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        padding = _THREE_BY_THREE[0].padding
        dx = in_other_words(dy, turned, strides, padding, dimension_numbers=_NHWC)
    else:
        dx = jax.vjp(lambda x: _aligned(plain, x, kernel), x)[1](dy)[0]
    products = jax.ShapeDtypeStruct((*x.shape[:3], 9 * few), dy.dtype)
    dy_few = jax.linear_transpose(partial(_summed, strides), products)(dy[..., -few:])[0]
    rows = _alone(_whole_multiple(x, 3))
    rows = rows.reshape(-1, rows.shape[3])
    dtaps = _products(rows.T, dy_few.reshape(-1, 9 * few))[: x.shape[3]]
    dkernel = [dtaps.reshape(-1, 3, 3, few).transpose(1, 2, 0, 3).astype(kernel.dtype)]
    if few < kernel.shape[-1]:
        others = kernel[..., :-few]
        dkernel.insert(0, jax.vjp(lambda k: _aligned(plain, x, k), others)[1](dy[..., :-few])[0])
    return dx, jnp.concatenate(dkernel, -1)


_in_two.defvjp(_in_two_forward, _in_two_backward)


def _by_taps(kernel):
    """A 3x3 kernel as the matrix whose products with a pixel `_summed` wants."""
    return kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def _products(x, matrix):
    """x @ matrix, summed and returned in float32 at least."""
    precise = jnp.promote_types(jnp.float32, x.dtype)
    y = jnp.dot(x, _whole_multiple(matrix, 1), preferred_element_type=precise)
    return y[..., : matrix.shape[1]]


def _summed(strides, y):
    """A 3x3 convolution, of the products of every pixel with every tap [B, H, W, 9 features]."""
    height, width = y.shape[1:3]
    y = jnp.pad(y.reshape(*y.shape[:3], 3, 3, -1), [(0, 0), (1, 1), (1, 1), *3 * [(0, 0)]])
    rows, columns = strides
    return sum(
        y[:, i : i + height : rows, j : j + width : columns, i, j]
        for i in range(3)
        for j in range(3)
    )


def _product(strides, x, kernel):
    """A convolution by 1x1 as a matrix product."""
    return _alone(x)[:, :: strides[0], :: strides[1]] @ kernel[0, 0]


def _alone(x):
    """`x`, which XLA does not make a part of a product: that of JAX 0.11 fails where it tries."""
    return lax.optimization_barrier(x)


def _aligned(convolve, x, kernel):
    """`convolve`, with zero channels up to whole multiples of what is computed together."""
    features = kernel.shape[-1]
    kernel = _whole_multiple(_whole_multiple(kernel, 2), 3)
    return convolve(_whole_multiple(x, 3), kernel)[..., :features]


def _whole_multiple(x, axis):
    """`x` with zeros along `axis` up to a whole multiple of `_TOGETHER`."""
    grow = [(0, -n % _TOGETHER if i == axis else 0) for i, n in enumerate(x.shape)]
    return jnp.pad(x, grow)


def _by_phases(form, options, x, kernel):
    """A convolution that `splits`."""
    d, around = form.dilation[0], [(k // 2, k // 2) for k in form.kernel]
    x, plain = forms.phases(x, d), options | {"rhs_dilation": (1, 1)}
    return forms.whole(lax.conv_general_dilated(x, kernel, (1, 1), around, **plain), d)


def _unpadded(x, kernel):
    """An unpadded convolution, of four pixels at once where it has an even number of them."""
    if all((n - k) % 2 for n, k in zip(x.shape[1:3], kernel.shape, strict=False)):
        return _of_cells(*forms.four_pixels_at_once(x, kernel))
    return _aligned(_valid, x, kernel)


def _transposed(x, kernel):
    return _of_cells(*forms.transposed_by_cells(x, kernel))


def _of_cells(x, kernel):
    """An unpadded convolution to the features of 2x2 pixels, which become pixels.

    The barrier makes XLA add a bias to these. It would add one to the cells instead, repeated for
    each pixel and written out as an array of y's size.
    """
    return forms.joined_cells(lax.optimization_barrier(_aligned(_valid, x, kernel)))


def _valid(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=_NHWC)


def _with_gradient_of(other, convolve, forward=None):
    """`forward`, or else `convolve`, whose image gets the gradient of `convolve`, the kernel that
    of `other`; all three have the same values."""
    forward = forward or convolve

    @jax.custom_vjp
    def run(x, kernel):
        return forward(x, kernel)

    def backward(kept, dy):
        x, kernel = kept
        (dx,) = jax.vjp(lambda x: convolve(x, kernel), x)[1](dy)
        (dkernel,) = jax.vjp(lambda kernel: other(x, kernel), kernel)[1](dy)
        return dx, dkernel

    run.defvjp(lambda x, kernel: (forward(x, kernel), (x, kernel)), backward)
    return run


@jax.custom_vjp
def _row_major_gradient(kernel):
    """`kernel`, whose gradient lies in memory as it does."""
    return kernel


def _laid_out(_, gradient):
    return (with_layout_constraint(gradient, Layout(range(gradient.ndim))),)


_row_major_gradient.defvjp(lambda kernel: (kernel, None), _laid_out)
