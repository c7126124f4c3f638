"""Pose estimation loss, Eq. 16."""

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs, Targets


def pose_sum(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. 16 to the letter: L = 1/M sum_i sum_{x,y} (H_i(x,y) - H-hat_i(x,y))^2.

    Args:
      predicted, target: float [M, h, w, J]; all channels are summed.

    Returns:
      A scalar.
    """
    return jnp.square(predicted - target).sum((1, 2, 3)).mean()


def pose_mean(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. 16 averaged over pixels and channels, as in the published code.

    The sum is h w J times as large (2592 at paper size) and with the published weight would drown
    the identity loss.
    """
    return jnp.square(predicted - target).mean()


def pose_upsampled(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """`pose_mean` at the target's finer resolution, as the published code computes it.

    The prediction is repeated to the size of the target [M, s h, s w, J]. The gradient is that of
    `pose_mean` against the target's s x s block means; the values differ by a constant.
    """
    scale = target.shape[1] // predicted.shape[1]
    return pose_mean(predicted.repeat(scale, 1).repeat(scale, 2), target)


FORMS = {"mean": pose_mean, "sum": pose_sum, "upsampled": pose_upsampled}


def term(outputs: Outputs, targets: Targets, *, form: str = "mean") -> jax.Array:
    """The loss of H-hat against the keypoint heatmaps of the batch."""
    return FORMS[form](outputs.heatmap, targets.heatmap)
