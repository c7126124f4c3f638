"""Hetero-center triplet loss, Eq. 18-20, and what the published code puts in its place."""

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs, Targets

_TINY = 1e-12  # below it squared distances count as zero, so that gradients stay finite


def centers(features: jax.Array, label: jax.Array) -> jax.Array:
    """Eq. 18, one per row: the mean of all rows with this row's label, [B, F] -> [B, F]."""
    same = (label[:, None] == label[None]).astype(features.dtype)
    return (same / same.sum(1, keepdims=True)) @ features


def hetero_center_sum(
    rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float, among: tuple | None = None
) -> jax.Array:
    """Eq. 19 for one head.

    L = sum_i [margin + |c_i^RGB - c_i^IR| - min_{m, j != i} |c_i^RGB - c_j^m|]_+
      + sum_i [margin + |c_i^IR - c_i^RGB| - min_{m, j != i} |c_i^IR - c_j^m|]_+

    over the identities i of the batch; m is either modality.

    Args:
      rgb, ir: float [B, F], `centers` of each modality by row: the anchors.
      label: int [B]; rows of one identity may stand anywhere.
      margin: rho.
      among: (rgb, ir, label) of the centres c_j, the anchors and others; None: of the anchors.

    Returns:
      A scalar.
    """
    *others, other_label = among or (rgb, ir, label)
    distance = distances(jnp.concatenate([rgb, ir]), jnp.concatenate(others))  # [2B, 2N]
    another = jnp.tile(label[:, None] != other_label[None], (2, 2))
    negative = jnp.where(another, distance, jnp.inf).min(1).reshape(2, -1)
    own = _root(jnp.square(rgb - ir).sum(-1))
    hinge = jax.nn.relu(margin + own - negative)
    return (hinge * _first_of_its_label(label)).sum()


def hetero_center_mean(
    rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float, among: tuple | None = None
) -> jax.Array:
    """Eq. 19 averaged over its 2D anchors, as in the public code of the loss's authors."""
    anchors = 2 * _first_of_its_label(label).sum()
    return hetero_center_sum(rgb, ir, label, margin, among) / anchors


def contrastive6(
    rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float, among: tuple | None = None
) -> jax.Array:
    """The contrastive loss that the published training code uses instead of Eq. 19.

    With c_i the mean of both modalities' centres, d_ij = |c_i^m - c_j| and y_ij = 1 where i and j
    share a label: for each modality m the mean over all pairs of rows of

      y d^2 + (1 - y) [margin - sqrt(d + 1e-10)]_+^2

    (the second root is the published code's). Arguments as in `hetero_center_sum`.
    """
    other_rgb, other_ir, other_label = among or (rgb, ir, label)
    middle = (other_rgb + other_ir) / 2
    same = label[:, None] == other_label[None]

    def one(anchor):
        distance = distances(anchor, middle)
        push = jnp.square(jax.nn.relu(margin - jnp.sqrt(distance + 1e-10)))
        return jnp.where(same, jnp.square(distance), push).mean()

    return one(rgb) + one(ir)


FORMS = {
    "sum": hetero_center_sum,
    "mean": hetero_center_mean,
    "contrastive6": contrastive6,
}


def term(
    outputs: Outputs, targets: Targets, *, form: str = "sum", margin: float = 0.3
) -> jax.Array:
    """Eq. 20: the loss of every head of both branches, summed; mined over the global batch.

    Each device has its own identities, as many as every other, for anchors.
    """
    loss = FORMS[form]
    half = len(targets.label) // 2
    label = targets.label[:half]

    def of_head(features):  # [2B, F]
        rgb, ir = centers(features[:half], label), centers(features[half:], label)
        return loss(rgb, ir, label, margin, gather((rgb, ir, label), targets.axis_name))

    own = jax.vmap(of_head)(jnp.concatenate(outputs.features)).sum()
    devices = jax.lax.axis_size(targets.axis_name) if targets.axis_name else 1
    return own * devices if form == "sum" else own


@jax.custom_vjp
def distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x_i - y_j|, [..., n, F] and [..., m, F] -> [..., n, m]; at zero its gradient is zero.

    With w_ij a distance's gradient over the distance, those of both arguments,

      dx_i = sum_j w_ij (x_i - y_j),    dy_j = -sum_i w_ij (x_i - y_j),

    are products of matrices. What all x and y have in common is taken away before these, which
    would round it. Leading dimensions are the same for both.
    """
    return _distances_forward(x, y)[0]


def _distances_forward(x, y):
    squared = jnp.square(x[..., :, None, :] - y[..., None, :, :]).sum(-1)
    distance = _root(squared)
    return distance, (x, y, jnp.where(squared > _TINY, 1 / distance, 0.0))


def _distances_backward(kept, gradient):
    x, y, inverse = kept
    middle = y.mean(-2, keepdims=True)
    x, y = x - middle, y - middle
    weights = gradient * inverse

    def of_one(weights, one, other):
        product = jnp.matmul(weights, other, precision="highest")
        return weights.sum(-1)[..., None] * one - product

    return of_one(weights, x, y), of_one(weights.swapaxes(-2, -1), y, x)


distances.defvjp(_distances_forward, _distances_backward)


def _root(squared):
    return jnp.sqrt(jnp.maximum(squared, _TINY))


def gather(rows: tuple, axis_name: str | None) -> tuple:
    """The rows of all devices, of each array; as they are without a mapped axis."""
    if not axis_name:
        return rows
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), rows)


def _first_of_its_label(label):
    """1.0 for the first row of each identity, else 0.0."""
    return (jnp.argmax(label[:, None] == label[None], 1) == jnp.arange(len(label))).astype(float)
