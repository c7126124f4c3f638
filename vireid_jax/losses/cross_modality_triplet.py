"""The cross-modality hard triplet loss of "HPILN" (Zhao et al., 2019), its hard pentaplet loss.

Of every image five belong together: the image, the hardest positive and negative among all others,
and the hardest positive and negative of the other modality.
"""

import jax
import jax.numpy as jnp

from vireid_jax.losses.hetero_center import distances, gather
from vireid_jax.types import Outputs, Targets


def hard_pentaplet(
    features: jax.Array,
    label: jax.Array,
    infrared: jax.Array,
    margin: float,
    among: tuple | None = None,
) -> jax.Array:
    """The loss of one head.

    L = 1/M sum_a [margin + max_p |f_a - f_p| - min_n |f_a - f_n|]_+
      + 1/M sum_a [margin + max_p' |f_a - f_p'| - min_n' |f_a - f_n'|]_+

    over the images a; p has a's identity and n another, and so have p' and n' of the other
    modality.

    Args:
      features: float [M, F], the anchors a.
      label: int [M].
      infrared: bool [M], the modality.
      margin: of both terms.
      among: (features, label, infrared) of all others, and of a itself; None: of the anchors.

    Returns:
      A scalar.
    """
    others, other_label, other_infrared = among or (features, label, infrared)
    same = label[:, None] == other_label[None]
    distance = distances(features, others)

    def hinge(among):
        positive = jnp.where(same & among, distance, -jnp.inf).max(1)
        negative = jnp.where(~same & among, distance, jnp.inf).min(1)
        return jax.nn.relu(margin + positive - negative).mean()

    return hinge(True) + hinge(infrared[:, None] != other_infrared[None])


def term(outputs: Outputs, targets: Targets, *, margin: float = 0.3) -> jax.Array:
    """`hard_pentaplet` of every head, summed; mined over the global batch.

    Each device has its own images, as many as every other, for anchors.
    """
    label = targets.label
    infrared = jnp.arange(len(label)) >= len(label) // 2

    def of_head(features):  # [2B, F]
        own = features, label, infrared
        return hard_pentaplet(*own, margin, gather(own, targets.axis_name))

    return jax.vmap(of_head)(jnp.concatenate(outputs.features)).sum()
