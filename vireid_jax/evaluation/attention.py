"""Where each branch of the network looks, as maps to be laid over images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vireid_jax.types import Outputs

_BRANCHES = {"ReID": ("F_ID", "id_logits"), "pose": ("F_P", "pose_logits")}


def grad_cam(features: jax.Array, gradient: jax.Array) -> jax.Array:
    """Grad-CAM (Selvaraju et al., ICCV 2017): [sum_c a_c F_c]_+, a_c the mean of dy/dF_c.

    Args:
      features: F, of a branch's last layer, float [B, h, w, C].
      gradient: of a score y, likewise.

    Returns:
      float [B, h, w], the highest value of each image 1; all 0 where nothing speaks for y.
    """
    weight = gradient.mean((1, 2), keepdims=True)
    return _to_highest(jax.nn.relu((weight * features).sum(-1)))


def attention(apply: Callable[[dict], Outputs], label: jax.Array) -> dict[str, jax.Array]:
    """`grad_cam` of the logit of an identity, summed over the parts of each branch.

    A pose branch without logits of its own, as PABR's, is seen through those of the ReID branch.

    Args:
      apply: runs the network on B images, and adds what its argument holds to F_ID and F_P.
      label: int [B], whose logit; -1: of the identity with the highest one.

    Returns:
      {"ReID": float [B, h, w]} and, with a pose branch, "pose".
    """
    outputs = apply({})
    there = {
        name: (features, logits if getattr(outputs, logits) is not None else "id_logits")
        for name, (features, logits) in _BRANCHES.items()
        if getattr(outputs, features) is not None
    }
    nothing = {
        features: jnp.zeros_like(getattr(outputs, features)) for features, _ in there.values()
    }

    def seen(features, logits):
        def score(perturbations):
            found = getattr(apply(perturbations), logits).sum(0)  # [B, N]
            chosen = jnp.where(label < 0, found.argmax(-1), label)
            return jnp.take_along_axis(found, chosen[:, None], 1).sum()

        return grad_cam(getattr(outputs, features), jax.grad(score)(nothing)[features])

    return {name: seen(*own) for name, own in there.items()}


def keypoints_and_mask(outputs: Outputs) -> dict[str, jax.Array]:
    """H-hat and the mask M (Eq. 7), as maps.

    Returns:
      {"H-hat": float [B, h, w], the highest joint, in [0, 1];
      "M": the mean over the channels, from the lowest value of each image (0) to the highest (1)}.
    """
    mask = outputs.M.mean(-1)
    mask = mask - mask.min((1, 2), keepdims=True)
    joints = outputs.heatmap[..., :16]  # without the background
    return {"H-hat": jnp.clip(joints.max(-1), 0, 1), "M": _to_highest(mask)}


def _to_highest(maps):
    return maps / jnp.maximum(maps.max((1, 2), keepdims=True), 1e-12)
