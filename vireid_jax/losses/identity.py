"""Identity loss, Eq. 17."""

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs, Targets


def identity(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross entropy of every head, averaged over images and summed over heads (Eq. 17).

    L = -1/M sum_i sum_j log p_j^i, with p_j^i the softmax probability of image i's own label
    under head j; no label smoothing.

    Args:
      logits: float [heads, M, N].
      label: int [M].

    Returns:
      A scalar.
    """
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, label[None, :, None], axis=-1)[..., 0]  # [heads, M]
    return -own.mean(1).sum()


def term(outputs: Outputs, targets: Targets) -> jax.Array:
    """`identity` over the part heads of both branches."""
    return sum(identity(logits, targets.label) for logits in outputs.logits)
