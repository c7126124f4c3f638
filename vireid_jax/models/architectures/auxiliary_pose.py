"""Fig. 2: two streams, a pose branch whose features mask the identity features, a teacher."""

import flax.linen as nn
import jax.numpy as jnp

from vireid_jax.models.architectures import identity_features, pose_features
from vireid_jax.models.part_heads import PartHeads, Teacher, stripes
from vireid_jax.types import Outputs

NEEDS_HEATMAPS = False


def outputs(net, layers, rgb, ir, heatmap) -> Outputs:
    """Eq. 1-14; without `net.pose_branch` and `net.teacher` the rows of Table IV."""
    del heatmap
    F_S, F_id2 = identity_features(net, layers, rgb, ir)
    pose = {}
    F_ID = F_id2
    if net.pose_branch:
        pose = pose_features(net, layers, F_S, F_id2)
        pose["M"] = nn.sigmoid(pose["F_P"])  # Eq. 7
        F_ID = pose["M"] * F_id2  # Eq. 9
    F_ID = net.perturbed("F_ID", F_ID)
    pooled = [stripes(x, net.parts) for x in (F_ID, pose.get("F_P")) if x is not None]
    heads = PartHeads(layers, len(pooled) * net.parts, net.features, net.ids, name="parts")
    features, logits = heads(jnp.concatenate(pooled))  # [P or 2P, 2B, F], [.., 2B, N]
    if net.pose_branch:
        pose["pose_features"] = features[net.parts :]
        pose["pose_logits"] = logits[net.parts :]
        pose["heatmap"] = pose["heatmap"].astype(logits.dtype)
    if net.teacher:
        head = Teacher(layers, net.teacher_features, net.ids, name="teacher")
        pose["teacher_logits"] = head(F_ID if net.masked_teacher else F_id2, pose["F_P"])
    return Outputs(
        id_logits=logits[: net.parts],
        id_features=features[: net.parts],
        F_S=F_S,
        F_id2=F_id2,
        F_ID=F_ID,
        **pose,
    )
