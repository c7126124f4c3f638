"""3x3 convolution in fewer products than its definition has, also to half and to twice the size.

Winograd's F(m, r), from polynomials: m outputs under r taps from n = m + r - 1 products instead of
m r. Let T_g take m coefficients a to the n of their product with g, of r. They follow from the
product's values at n points,

  T_g a = V^-1 [(G g) * (A a)],

where A [n, m], G [n, r] and V [n, n] take coefficients to values there. (T_g a)[i + k] collects
g[k] a[i], so that the transposed map is the convolution that layers mean,

  y[i] = sum_k d[i + k] g[k] = (T_g^T d)[i],    y = A^T [(G g) * (B d)],    B = V^-T,

for a tile of n d and its m y. At a stride of 2 every other d has two taps and those between one; to
twice the size the same is true of y. F(3, 2) beside three products of their own is of this kind as
well, with 7 products for 9, of 7 d and 3 y or of 4 d and 6 y. Rows and columns of an image, which
have a rule each, become as many products of matrices over channels as theirs together,

  25 for 81, 30 for 108 or 36 for 144 at stride 1,    49 for 81 at stride 2 or transposed,

with a row for each tile. Such a map is linear in d and in g, so that both gradients have as few:

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


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no hash
class Rule:
    """How rows, or columns, are convolved: y = A^T [(G g) * (B d)] for each tile.

    Attributes:
      taps: G [n, 3].
      inputs: B [n, pixels of a tile], which overlaps none but the next.
      outputs: A [n, pixels of y of a tile].
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

    def products(self, n: int) -> int:
        """For n pixels of x; the definition has `3 * min(n, size(n))`."""
        return self.tiles(n) * len(self.taps)

    def tiles(self, n: int) -> int:
        """That n pixels of x come in."""
        return -(-n // self.step)


def _matrices(points, taps):
    """G, B and A; the last point is infinity, where a polynomial has its last coefficient."""

    def values(coefficients):
        infinity = np.eye(coefficients)[-1:]
        return np.concatenate([np.vander(points, coefficients, increasing=True), infinity])

    n = len(points) + 1
    inverse = np.rint(30 * np.linalg.inv(values(n)).T) / 30  # of the points below, exactly
    return values(taps), inverse, values(n + 1 - taps)


def _plain(*points):
    taps, inputs, outputs = _matrices(points, 3)
    return Rule(taps, inputs, outputs, step=outputs.shape[1], before=1)


def _doubled():
    """The rules to half and to twice the size."""
    pair, inputs, outputs = _matrices((0, 1, -1), 2)
    taps = np.concatenate([pair @ np.eye(3)[::2], np.eye(3)[[1, 1, 1]]])
    of_seven = np.concatenate([inputs @ np.eye(7)[::2], np.eye(7)[1::2]])
    half = Rule(taps, of_seven, np.concatenate([outputs, np.eye(3)]), step=6, before=1)
    of_six = np.concatenate([outputs @ np.eye(6)[1::2], np.eye(6)[::2]])
    twice = Rule(taps, np.concatenate([inputs, np.eye(3, 4)]), of_six, step=3, before=0)
    return half, twice


# Tiles of more pixels would need still fewer products, and lose digits.
_PLAIN = _plain(0, 1, -1, 2), _plain(0, 1, -1, 1 / 2, -2)
_HALF, _TWICE = _doubled()


def rules_for(form: forms.Form, x: jax.Array) -> tuple[Rule, Rule] | None:
    """For rows and columns of images x [B, H, W, C]; None where none has fewer products."""
    sizes = [n // d for n, d in zip(x.shape[1:3], form.dilation, strict=True)]
    if form == forms.TRANSPOSED:
        rules = _TWICE, _TWICE
    elif form == forms.Form((3, 3), strides=(2, 2)):
        rules = _HALF, _HALF
    elif form.kernel == (3, 3) and form.splits(x):
        rules = tuple(min(_PLAIN, key=lambda rule: rule.products(n)) for n in sizes)
    else:
        return None
    each = list(zip(rules, sizes, strict=True))
    ours = math.prod(rule.products(n) for rule, n in each)
    return rules if ours < math.prod(3 * min(n, rule.size(n)) for rule, n in each) else None


def conv3x3(
    x: jax.Array, kernel: jax.Array, rules: tuple[Rule, Rule], dilation: int = 1
) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, C, D]: [B, H', W', D].

    Args:
      x, kernel: float32 or float64.
      rules: of rows and columns, by `rules_for`: to the same size, to half of it (rounded up) or to
        twice, padded as the form is that they are for.
      dilation: d, of the kernel, which H and W are multiples of: what it sees are d d smaller
        images, of every d-th row and column. 1 unless the size stays the same.
    """
    return forms.joined(_convolved(forms.split(x, dilation), kernel, rules))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolved(x, kernel, rules):
    """Of images that are `forms.split`, as all below are: [B, h, d, w, d, C]."""
    convolve = partial(_convolve, rules, u=_of_taps(rules, kernel))
    y = lax.map(convolve, _in_turn(x, _at_a_time(rules, x, kernel)))
    return y.reshape(-1, *y.shape[2:])


def _forward(x, kernel, rules):
    return _convolved(x, kernel, rules), (x, kernel)


def _backward(rules, kept, dy):
    x, kernel = kept
    u = _of_taps(rules, kernel)
    turned = x.shape[-1] > dy.shape[-1]  # see cpu_products.py

    def backward(du, images):
        x, dy = images
        of_x, of_dy = _of_inputs(rules, x), _of_outputs(rules, dy)
        both = (of_dy, of_x) if turned else (of_x, of_dy)
        du = jax.tree.map(add, du, jax.tree.map(_summed, *both))
        products = jax.tree.map(lambda tiles, u: _times(tiles, u.mT), of_dy, u)
        return du, _after(_overlapped(rules, products, x.shape), of_x, of_dy, products)

    count = _at_a_time(rules, x, kernel)
    images = _in_turn(x, count), _in_turn(dy, count)
    start = jax.tree.map(lambda u: jnp.zeros_like(u.mT if turned else u), u)
    du, dx = lax.scan(backward, start, images)
    du = jnp.concatenate([jnp.stack(half) for half in du], 1)  # in the order of `_both` again
    dkernel = _product(_both(rules).T, du, (3, 3))
    return dx.reshape(x.shape), dkernel.mT if turned else dkernel


_convolved.defvjp(_forward, _backward)


def _at_a_time(rules, x, kernel):
    """How many images; a divisor of their number."""
    tiles = [rule.tiles(n) for rule, n in zip(rules, x.shape[1:4:2], strict=True)]
    values = len(_both(rules)) * math.prod(tiles) * math.prod(x.shape[2:5:2])
    each = values * sum(kernel.shape[2:])
    divisors = [n for n in range(1, len(x) + 1) if len(x) % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n * each / _AT_A_TIME)))


def _in_turn(images, count):
    return images.reshape(-1, count, *images.shape[1:])


def _both(rules):
    """G of rows and columns as one, [n n, 9], the columns first."""
    rows, columns = (rule.taps for rule in rules)
    return np.einsum("ha,wb->whab", rows, columns).reshape(-1, 9)


def _of_taps(rules, kernel):
    """u = G g of both dimensions, in lists as those of `_spread`: [v, C, D] each."""
    rows, columns = (len(rule.taps) for rule in rules)
    u = _product(_both(rules), kernel, (columns, rows))
    return [list(half) for half in zip(*map(_halves, u), strict=True)]


def _product(matrix, x, shape):
    """`matrix` times x [..., C, D], all dimensions but the last two as one: [*shape, C, D]."""
    rows = x.reshape(matrix.shape[1], -1)
    return (jnp.asarray(matrix, x.dtype) @ rows).reshape(*shape, *x.shape[-2:])


def _times(tiles, u):
    """Tiles [v, ..., C] times u [v, C, D]: [v, ..., D]."""
    return jnp.einsum("vnc,vcd->vnd", _rows(tiles), u).reshape(*tiles.shape[:-1], -1)


def _summed(x, dy):
    """From tiles [v, ..., C] of x and [v, ..., D] of dy the gradient of u, [v, C, D]."""
    return jnp.einsum("vnc,vnd->vcd", _rows(x), _rows(dy))


def _rows(tiles):
    """A row for each tile, [v, tiles, C]: one dimension to sum over, not many."""
    return tiles.reshape(len(tiles), -1, tiles.shape[-1])


def _of_inputs(rules, x):
    return _spread([(rule.inputs, rule.step, rule.before) for rule in rules], x)


def _of_outputs(rules, dy):
    return _spread([(rule.outputs, rule.outputs.shape[1], 0) for rule in rules], dy)


def _spread(maps, x):
    """Matrices for rows and columns times every tile.

    XLA's CPU backend takes one core for a batch of small products, and gives operations to another
    core only while more than eight are ready. So each of the columns' values has two arrays, 10 to
    14 in all (see docs/benchmarks.md).

    Args:
      maps: of rows and of columns the matrix, the step from tile to tile, and the zeros before the
        first one.
      x: images.

    Returns:
      For v of the rows' values, one half and the other, a list of the columns': [v, b, tiles, d,
      tiles, d, C] each.
    """
    around = [(0, 0)] * x.ndim
    for axis, (matrix, step, before) in zip((1, 3), maps, strict=True):
        around[axis] = before, -x.shape[axis] % step + matrix.shape[1] - step - before
    (rows, down, _), (columns, right, _) = maps
    of_rows = _halves(_of_tiles(rows, down, jnp.pad(x, around), 1))
    return [_of_tiles(columns, right, jnp.stack(half), 4) for half in of_rows]


def _of_tiles(matrix, step, x, axis):
    last = x.shape[axis] - matrix.shape[1]  # where the last tile starts
    starts = range(matrix.shape[1])
    return _combined(matrix, [lax.slice_in_dim(x, i, i + last + 1, step, axis) for i in starts])


def _halves(x):
    middle = len(x) // 2
    return x[:middle], x[middle:]


def _gathered(pixels, rules, halves):
    """Images from values: columns' pixels, then rows', each `pixels(rule, values, axis)`."""
    rows, columns = rules
    first, second = [_interleaved(pixels(columns, half, 4), 4) for half in halves]
    return _interleaved(pixels(rows, [*first, *second], 1), 1)


def _convolve(rules, x, u):
    def pixels(rule, values, _):
        return _combined(rule.outputs.T, values)

    tiles = _of_inputs(rules, x)
    products = jax.tree.map(_times, tiles, u)
    height, width = (rule.size(n) for rule, n in zip(rules, x.shape[1:4:2], strict=True))
    y = _gathered(pixels, rules, products)[:, :height, :, :width]
    return _after(y, tiles, products)


def _overlapped(rules, halves, shape):
    """B^T of both dimensions times tiles, added up to images of `shape`."""

    def pixels(rule, values, axis):
        own, next_one = [[(0, 0)] * values[0].ndim for _ in range(2)]
        own[axis], next_one[axis] = (0, 1), (1, 0)
        parts = _combined(rule.inputs.T, values)
        added = [jnp.pad(part, own) for part in parts[: rule.step]]
        for i, part in enumerate(parts[rule.step :]):
            added[i] += jnp.pad(part, next_one)
        return added

    x = _gathered(pixels, rules, halves)
    top, left = (rule.before for rule in rules)
    return x[:, top : top + shape[1], :, left : left + shape[3]]


def _after(y, *arrays):
    """`y`, which is computed when all of `arrays` are, and before their memory is used again.

    XLA's CPU backend places arrays where others lay that are read no more by then. Products of
    tiles would have to wait for one another: where one lies is what the one before reads. (It does
    not keep an optimization_barrier, and may not take 0 x for 0.)
    """
    arrays = jax.tree.leaves(arrays)

    def read(arrays):
        return 0 * jnp.concatenate([x.ravel()[:1] for x in arrays]).sum()

    return y + lax.cond(arrays[-1].ravel()[0] > 0, read, lambda _: jnp.zeros((), y.dtype), arrays)


def _interleaved(parts, axis):
    """The first of each part, then the second of each, and so on."""
    x = jnp.stack(parts, axis + 1)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _combined(matrix, parts):
    """`matrix` [m, n] times n arrays: m arrays."""
    rows = [[c * x for c, x in zip(row, parts, strict=True) if c] for row in matrix.tolist()]
    return [reduce(add, terms) for terms in rows]
