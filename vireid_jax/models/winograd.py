"""3x3 convolution in fewer products than its definition has, also to half and to twice the size.

Winograd's F(m, r), from polynomials: m outputs under r taps from n = m + r - 1 products instead of
m r. Let T_g take m coefficients a to the n of their product with g, of r. They follow from the
product's values at n points,

  T_g a = V^-1 [(G g) * (A a)],

where A [n, m], G [n, r] and V [n, n] take coefficients to values there. (T_g a)[i + k] collects
g[k] a[i], so that the transposed map is the convolution that layers mean,

  y[i] = sum_k d[i + k] g[k] = (T_g^T d)[i],    y = A^T [(G g) * (B d)],    B = V^-T,

for a tile of n d and its m y. A stride of 2 meets every other d with two taps and those between
with one, and of twice the size every other y has two taps and those between one: F(3, 2) beside
three products of their own makes a rule of this kind as well, with 7 products for 9. In rows and
columns of an image they become

  25 for 81, or 36 for 144, at stride 1,    49 for 81 at stride 2 or transposed:

as many products of matrices over channels, a row for each tile. Such a map is linear in d and in g,
so that both gradients have as few products, and G g serves twice:

  dd = B^T [(G g) * (A dy)], added where tiles overlap,   dg = G^T [sum of (B d) (A dy) over tiles].
"""

import dataclasses
import math
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vireid_jax.models import forms

_AT_A_TIME = 4e6  # numbers that the images in work turn into, forward: about what a cache holds


@dataclasses.dataclass(frozen=True, eq=False)
class Rule:
    """Of one dimension, see above.

    Attributes:
      taps: G [n, 3].
      inputs: B [n, pixels of a tile].
      outputs: A [n, pixels of y that it gives].
      step: pixels of x from one tile to the next.
      before: zeros in front of the first pixel.
    """

    taps: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    step: int
    before: int

    def size(self, n: int) -> int:
        """Of y, for n pixels of x."""
        return -(-n * self.outputs.shape[1] // self.step)

    def tiles(self, n: int) -> int:
        """That cover y."""
        return -(-self.size(n) // self.outputs.shape[1])


def _rule(points, taps):
    """G, B and A; the last point is infinity, where a polynomial has its last coefficient."""

    def values(coefficients):
        infinity = np.eye(coefficients)[-1:]
        return np.concatenate([np.vander(points, coefficients, increasing=True), infinity])

    n = len(points) + 1
    inverse = np.linalg.inv(values(n)).T
    return values(taps), np.where(abs(inverse) > 1e-9, inverse, 0), values(n + 1 - taps)


def _plain(*points):
    taps, inputs, outputs = _rule(points, 3)
    return Rule(taps, inputs, outputs, step=outputs.shape[1], before=1)


def _doubled():
    """The rules to half and to twice the size."""
    pair, few, three = _rule((0, 1, -1), 2)
    taps, inputs, wide = np.zeros((7, 3)), np.zeros((7, 7)), np.zeros((7, 6))
    taps[:4, ::2], taps[4:, 1] = pair, 1
    inputs[:4, ::2], inputs[4:, 1::2] = few, np.eye(3)
    wide[:4, 1::2], wide[4:, ::2] = three, np.eye(3)
    half = Rule(taps, inputs, np.concatenate([three, np.eye(3)]), step=6, before=1)
    few = np.concatenate([few, np.eye(3, 4)])
    return half, Rule(taps, few, wide, step=3, before=0)


# Tiles of more pixels would need still fewer products, and lose digits.
_PLAIN = _plain(0, 1, -1, 2), _plain(0, 1, -1, 1 / 2, -2)
_HALF, _TWICE = _doubled()


def rules(form: forms.Form, x: jax.Array) -> tuple[Rule, Rule] | None:
    """For the rows and columns of images x, or None where there are none for this convolution."""
    if form == forms.TRANSPOSED:
        return _TWICE, _TWICE
    if form == forms.Form((3, 3), strides=(2, 2)):
        return _HALF, _HALF
    if form.kernel == (3, 3) and form.splits(x):
        sizes = [n // d for n, d in zip(x.shape[1:3], form.dilation, strict=True)]
        return tuple(min(_PLAIN, key=lambda rule: rule.tiles(n) * len(rule.taps)) for n in sizes)
    return None


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv3x3(x: jax.Array, kernel: jax.Array, rules: tuple[Rule, Rule], dilation: int = 1):
    """Convolves x [B, H, W, C] with kernel [3, 3, C, D] by `rules`: [B, H', W', D].

    H and W are multiples of `dilation`: what a dilated kernel sees are several smaller images, of
    every so many rows and columns.
    """
    convolve = partial(_convolve, rules, dilation, u=_of_taps(rules, kernel))
    y = lax.map(convolve, _in_turn(x, x, kernel, rules))
    return y.reshape(-1, *y.shape[2:])


def _forward(x, kernel, rules, dilation):
    return conv3x3(x, kernel, rules, dilation), (x, kernel)


def _backward(rules, dilation, kept, dy):
    x, kernel = kept
    u = _of_taps(rules, kernel)

    def backward(du, images):
        x, dy = images
        of_x, of_dy = _of_inputs(rules, dilation, x), _of_outputs(rules, dilation, dy)
        du += jnp.einsum("tnc,tnd->tcd", _rows(of_x), _rows(of_dy))
        products = jnp.einsum("tnd,tcd->tnc", _rows(of_dy), u)
        return du, _overlapped(rules, dilation, products.reshape(of_x.shape), x.shape)

    images = [_in_turn(image, x, kernel, rules) for image in (x, dy)]
    du, dx = lax.scan(backward, jnp.zeros(u.shape, x.dtype), images)
    return dx.reshape(x.shape), _product(_both(rules).T, du, (3, 3))


conv3x3.defvjp(_forward, _backward)


def _in_turn(images, x, kernel, rules):
    """`images`, one for each of x, as [times, b, ...] for b at a time."""
    tiles = [rule.tiles(n) for rule, n in zip(rules, x.shape[1:3], strict=True)]
    each = math.prod(tiles) * len(_both(rules)) * sum(kernel.shape[2:])
    divisors = [n for n in range(1, len(x) + 1) if len(x) % n == 0]
    at_a_time = min(divisors, key=lambda n: abs(math.log(n * each / _AT_A_TIME)))
    return images.reshape(-1, at_a_time, *images.shape[1:])


def _both(rules):
    """G of rows and columns as one, [n n, 9], the columns first."""
    rows, columns = (rule.taps for rule in rules)
    return np.einsum("ha,wb->whab", rows, columns).reshape(-1, 9)


def _of_taps(rules, kernel):
    both = _both(rules)
    return _product(both, kernel, both.shape[:1])


def _product(matrix, x, shape):
    """`matrix` times x [..., C, D], all dimensions but the last two as one: [*shape, C, D]."""
    rows = x.reshape(matrix.shape[1], -1)
    return (jnp.asarray(matrix, x.dtype) @ rows).reshape(*shape, *x.shape[-2:])


def _rows(tiles):
    """A matrix for each value, a row for each tile: one dimension to sum over, not many."""
    return tiles.reshape(math.prod(tiles.shape[:2]), -1, tiles.shape[-1])


def _of_inputs(rules, dilation, x):
    """B of both dimensions times every tile of x: [n, n, b, tiles, d, tiles, d, C]."""
    x = _phased(x, dilation)
    around = [(0, 0)] * x.ndim
    for axis, rule in zip((1, 3), rules, strict=True):
        n = x.shape[axis]
        after = (rule.tiles(n) - 1) * rule.step + rule.inputs.shape[1] - n - rule.before
        around[axis] = rule.before, after
    return _spread([(rule.inputs, rule.step) for rule in rules], jnp.pad(x, around))


def _of_outputs(rules, dilation, dy):
    """A of both times every tile of dy, likewise."""
    dy = _phased(dy, dilation)
    around = [(0, 0)] * dy.ndim
    for axis, rule in zip((1, 3), rules, strict=True):
        around[axis] = 0, -dy.shape[axis] % rule.outputs.shape[1]
    return _spread([(rule.outputs, rule.outputs.shape[1]) for rule in rules], jnp.pad(dy, around))


def _spread(maps, x):
    """A matrix times the tiles of rows, then of columns, each so many pixels after the last."""
    for axis, (matrix, step) in zip((1, 4), maps, strict=True):  # one more in front by then
        reach = matrix.shape[1]
        end = x.shape[axis] - reach + 1
        parts = [lax.slice_in_dim(x, i, i + end, step, axis) for i in range(reach)]
        x = jnp.stack(_combined(matrix, parts))
    return x


def _convolve(rules, dilation, x, u):
    tiles = _of_inputs(rules, dilation, x)
    products = jnp.einsum("tnc,tcd->tnd", _rows(tiles), u)
    y = products.reshape(*tiles.shape[:-1], -1)
    for axis, rule in zip((4, 1), rules[::-1], strict=True):  # columns, then rows
        y = _interleaved(_combined(rule.outputs.T, y), axis)
    size = [rule.size(n // dilation) for rule, n in zip(rules, x.shape[1:3], strict=True)]
    return _whole(y[:, : size[0], :, : size[1]])


def _overlapped(rules, dilation, tiles, shape):
    """B^T of both dimensions times `tiles`, those of images of `shape`, which they add up to."""
    x = tiles
    for axis, rule in zip((4, 1), rules[::-1], strict=True):
        parts = _combined(rule.inputs.T, x)
        first, then = [[(0, 0)] * parts[0].ndim for _ in range(2)]
        first[axis], then[axis] = (0, 1), (1, 0)
        pixels = [jnp.pad(part, first) for part in parts[: rule.step]]
        for i, part in enumerate(parts[rule.step :]):
            pixels[i] += jnp.pad(part, then)
        x = _interleaved(pixels, axis)
    places = [
        slice(r.before, r.before + n // dilation) for r, n in zip(rules, shape[1:3], strict=True)
    ]
    return _whole(x[:, places[0], :, places[1]])


def _interleaved(parts, axis):
    """The first of each part, then the second of each, and so on."""
    x = jnp.stack(parts, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _phased(x, dilation):
    """Images [b, H, W, C] as [b, H / d, d, W / d, d, C]."""
    batch, height, width, channels = x.shape
    d = dilation
    return x.reshape(batch, height // d, d, width // d, d, channels)


def _whole(x):
    """Undoes `_phased`."""
    batch, height, d, width, _, channels = x.shape
    return x.reshape(batch, height * d, width * d, channels)


def _combined(matrix, parts):
    """`matrix` [m, n] times n arrays: m arrays."""
    rows = [[c * x for c, x in zip(row, parts, strict=True) if c] for row in matrix.tolist()]
    return [reduce(add, terms) for terms in rows]
