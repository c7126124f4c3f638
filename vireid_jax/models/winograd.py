"""3x3 convolution at stride 1 with 25 products for nine outputs, where the definition has 81.

Winograd's F(3x3, 3x3), from polynomials. Let T_g take the three coefficients a of one to the five
of its product with another, g. They follow from the product's values at five points,

  T_g a = V^-1 [(E g) * (E a)],

where E [5, 3] and V [5, 5] take coefficients to values there. (T_g a)[i + k] collects g[k] a[i], so
that the transposed map is the convolution that layers mean,

  y[i] = sum_k d[i + k] g[k] = (T_g^T d)[i],    y = E^T [(E g) * (V^-T d)]

for a tile of five d and its three y, with five products where there were nine. Rows and columns of
an image both go through it: tiles of 5x5 pixels that overlap by two, and a product of matrices over
channels for each of 25 values. The gradient of the images is the convolution of dy with the kernel
turned by half a turn; that of the kernel is E^T [sum over tiles of (V^-T d) (E dy)] E.
"""

import math
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vireid_jax.models import forms

_POINTS = 0, 1, -1, 2  # and infinity, where a polynomial has the value of its last coefficient


def _values(coefficients):
    infinity = np.eye(coefficients)[-1:]
    return np.concatenate([np.vander(_POINTS, coefficients, increasing=True), infinity])


_E = _values(3)
_EE = np.einsum("ha,wb->whab", _E, _E).reshape(25, 9)  # g to E g E^T, the columns first
_D = np.rint(6 * np.linalg.inv(_values(5)).T) / 6  # V^-T, all sixths
_TILE = 3  # pixels from one to the next
_AT_A_TIME = 4e6  # numbers that the images in work turn into, forward: about what a cache holds


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3(x: jax.Array, kernel: jax.Array, dilation: int = 1) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, C, D], padded by zeros to [B, H, W, D].

    H and W are multiples of `dilation`: what a dilated kernel sees are several smaller images, of
    every so many rows and columns.
    """
    convolve = partial(_convolve, u=_product(_EE, kernel, (25,)))
    y = lax.map(convolve, _in_turn(x, dilation, sum(kernel.shape[2:])))
    return _whole(y, dilation)


def _forward(x, kernel, dilation):
    return conv3x3(x, kernel, dilation), (x, kernel)


def _backward(dilation, kept, dy):
    x, kernel = kept
    turned = _product(_EE[:, ::-1], kernel, (25,)).swapaxes(1, 2)

    def backward(du, images):
        x, dy = images
        of_x, of_dy = _rows(_tiles(_D, x, 1)), _rows(_tiles(_E, dy, 0))
        return du + jnp.einsum("tnc,tnd->tcd", of_x, of_dy), _convolve(dy, turned)

    images = [_in_turn(image, dilation, sum(kernel.shape[2:])) for image in (x, dy)]
    du, dx = lax.scan(backward, jnp.zeros((25, *kernel.shape[2:]), x.dtype), images)
    return _whole(dx, dilation), _product(_EE.T, du, (3, 3))


conv3x3.defvjp(_forward, _backward)


def _in_turn(x, dilation, channels):
    """x as images without dilation, [times, b, h, w, C] for b images at a time.

    `channels` are those of x and y, whose tiles are held at a time.
    """
    x = forms.phases(x, dilation)
    each = 25 / 9 * math.prod(x.shape[1:3]) * channels
    divisors = [n for n in range(1, len(x) + 1) if len(x) % n == 0]
    at_a_time = min(divisors, key=lambda n: abs(math.log(n * each / _AT_A_TIME)))
    return x.reshape(-1, at_a_time, *x.shape[1:])


def _whole(y, dilation):
    """Undoes `_in_turn`."""
    return forms.whole(y.reshape(-1, *y.shape[2:]), dilation)


def _product(matrix, x, shape):
    """`matrix` times x [..., C, D], all dimensions but the last two as one: [*shape, C, D]."""
    rows = x.reshape(matrix.shape[1], -1)
    return (jnp.asarray(matrix, x.dtype) @ rows).reshape(*shape, *x.shape[-2:])


def _rows(tiles):
    """A matrix for each of 25 values, a row for each tile: one dimension to sum over, not three."""
    return tiles.reshape(25, -1, tiles.shape[-1])


def _convolve(x, u):
    tiles = _tiles(_D, x, 1)
    products = jnp.einsum("tnc,tcd->tnd", _rows(tiles), u)
    y = products.reshape(*tiles.shape[:-1], -1)  # [5, 5, b, h / 3, w / 3, D]
    for axis in (4, 2):  # w, then h
        y = jnp.stack(_combined(_E.T, y), axis)
        y = y.reshape(*y.shape[: axis - 1], -1, *y.shape[axis + 1 :])
    return y[:, : x.shape[1], : x.shape[2]]


def _tiles(matrix, x, margin):
    """`_spread` of x in zeros, `margin` of them and as many more as make the last tiles whole."""
    around = [(margin, margin + -n % _TILE) for n in x.shape[1:3]]
    return _spread(matrix, jnp.pad(x, ((0, 0), *around, (0, 0))))


def _spread(matrix, x):
    """`matrix` [m, n] times every tile of n x n of x [b, h, w, ...]: [m, m, b, h / 3, w / 3, ...].

    The first m is that of the columns.
    """
    for axis in (1, 3):  # h, then w with the m of h before it
        last = x.shape[axis] - matrix.shape[1]  # where the last tile starts
        starts = range(matrix.shape[1])
        parts = [lax.slice_in_dim(x, i, i + last + 1, _TILE, axis) for i in starts]
        x = jnp.stack(_combined(matrix, parts))
    return x


def _combined(matrix, parts):
    """`matrix` [m, n] times n arrays: m arrays."""
    rows = [[c * x for c, x in zip(row, parts, strict=True) if c] for row in matrix.tolist()]
    return [reduce(add, terms) for terms in rows]
