"""The cross-modality hard triplet loss of "HPILN" (Zhao et al., 2019), its hard pentaplet loss.

Of every image five belong together: the image, the hardest positive and negative among all others,
and the hardest positive and negative of the other modality.
"""

import jax
import jax.numpy as jnp

from vireid_jax.losses.hetero_center import distances, gather
from vireid_jax.types import Outputs, Targets


def hard_pentaplet(
    features: jax.Array, label: jax.Array, infrared: jax.Array, margin: float
) -> jax.Array:
    """The loss of one head.

    L = 1/M sum_a [margin + max_p |f_a - f_p| - min_n |f_a - f_n|]_+
      + 1/M sum_a [margin + max_p' |f_a - f_p'| - min_n' |f_a - f_n'|]_+

    over the images a; p has a's identity and n another, and so have p' and n' of the other
    modality.

    Args:
      features: float [M, F].
      label: int [M].
      infrared: bool [M], the modality.
      margin: of both terms.

    Returns:
      A scalar.
    """
    same = label[:, None] == label[None]
    distance = distances(features)

    def hinge(among):
        positive = jnp.where(same & among, distance, -jnp.inf).max(1)
        negative = jnp.where(~same & among, distance, jnp.inf).min(1)
        return jax.nn.relu(margin + positive - negative).mean()

    return hinge(True) + hinge(infrared[:, None] != infrared[None])


def term(outputs: Outputs, targets: Targets, *, margin: float = 0.3) -> jax.Array:
    """`hard_pentaplet` of every head, summed; mined over the global batch."""
    features = jnp.concatenate(outputs.features)  # [heads, 2B, F]
    infrared = jnp.arange(features.shape[1]) >= features.shape[1] // 2
    label = targets.label
    if targets.axis_name:
        features = gather(features, targets.axis_name, axis=1)
        label, infrared = (gather(x, targets.axis_name, axis=0) for x in (label, infrared))
    return jax.vmap(hard_pentaplet, (0, None, None, None))(features, label, infrared, margin).sum()
