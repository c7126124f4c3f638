"""Hetero-center triplet loss, Eq. 18-20, and what the published code puts in its place."""

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs, Targets

_TINY = 1e-12  # below it squared distances count as zero, so that gradients stay finite


def centers(features: jax.Array, label: jax.Array) -> jax.Array:
    """Eq. 18, one per row: the mean of all rows with this row's label, [B, F] -> [B, F]."""
    same = (label[:, None] == label[None]).astype(features.dtype)
    return (same / same.sum(1, keepdims=True)) @ features


def hetero_center_sum(rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float) -> jax.Array:
    """Eq. 19 for one head.

    L = sum_i [margin + |c_i^RGB - c_i^IR| - min_{m, j != i} |c_i^RGB - c_j^m|]_+
      + sum_i [margin + |c_i^IR - c_i^RGB| - min_{m, j != i} |c_i^IR - c_j^m|]_+

    over the identities i of the batch; m is either modality.

    Args:
      rgb, ir: float [B, F], `centers` of each modality by row.
      label: int [B]; rows of one identity may stand anywhere.
      margin: rho.

    Returns:
      A scalar.
    """
    both = jnp.stack([rgb, ir])  # [2, B, F], the anchors
    other = label[:, None] != label[None]  # [B, B]
    distance = distances(both.reshape(-1, both.shape[-1])).reshape(2, len(label), 2, len(label))
    negative = jnp.where(other[:, None], distance, jnp.inf).min((2, 3))  # [2, B]
    positive = jnp.diagonal(distance[0, :, 1])  # [B]
    hinge = jax.nn.relu(margin + positive - negative)
    return (hinge * _first_of_its_label(label)).sum()


def hetero_center_mean(rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float) -> jax.Array:
    """Eq. 19 averaged over its 2D anchors, as in the public code of the loss's authors."""
    anchors = 2 * _first_of_its_label(label).sum()
    return hetero_center_sum(rgb, ir, label, margin) / anchors


def contrastive6(rgb: jax.Array, ir: jax.Array, label: jax.Array, margin: float) -> jax.Array:
    """The contrastive loss that the published training code uses instead of Eq. 19.

    With c_i the mean of both modalities' centres, d_ij = |c_i^m - c_j| and y_ij = 1 where i and j
    share a label: for each modality m the mean over all pairs of rows of

      y d^2 + (1 - y) [margin - sqrt(d + 1e-10)]_+^2

    (the second root is the published code's). Arguments as in `hetero_center_sum`.
    """
    middle = (rgb + ir) / 2
    same = label[:, None] == label[None]

    def one(anchor):
        squared = jnp.square(anchor[:, None] - middle[None]).sum(-1)
        distance = jnp.sqrt(jnp.maximum(squared, _TINY))
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
    """Eq. 20: the loss of every head of both branches, summed; mined over the global batch."""
    loss = FORMS[form]
    features = jnp.concatenate(outputs.features)  # [heads, 2B, F]
    half = features.shape[1] // 2
    label = targets.label[:half]
    of_rows = jax.vmap(centers, (0, None))
    rgb, ir = of_rows(features[:, :half], label), of_rows(features[:, half:], label)
    if targets.axis_name:
        rgb, ir = (gather(x, targets.axis_name, axis=1) for x in (rgb, ir))
        label = gather(label, targets.axis_name, axis=0)
    return jax.vmap(loss, (0, 0, None, None))(rgb, ir, label, margin).sum()


def distances(x: jax.Array) -> jax.Array:
    """|x_i - x_j|, [n, F] -> [n, n]; a distance of zero has gradient zero."""
    squared = jnp.square(x[:, None] - x[None]).sum(-1)
    return jnp.sqrt(jnp.maximum(squared, _TINY))


def gather(x: jax.Array, axis_name: str, axis: int) -> jax.Array:
    """The rows of all devices along `axis`."""
    return jax.lax.all_gather(x, axis_name, axis=axis, tiled=True)


def _first_of_its_label(label):
    """1.0 for the first row of each identity, else 0.0."""
    return (jnp.argmax(label[:, None] == label[None], 1) == jnp.arange(len(label))).astype(float)
