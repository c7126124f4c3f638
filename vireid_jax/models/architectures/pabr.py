"""PABR for two modalities (Sec. IV-C): appearance and pose features, fused by bilinear pooling.

After "Part-Aligned Bilinear Representations for Person Re-identification" (Suh et al., ECCV 2018).
The pose branch has no loss of its own: what it looks at, identities alone teach it.
"""

from vireid_jax.models import bilinear
from vireid_jax.models.part_heads import PartHeads
from vireid_jax.models.pose_branch import PoseBranch
from vireid_jax.models.reid_branch import ReidBranch
from vireid_jax.models.streams import TwoStream
from vireid_jax.types import Outputs

NEEDS_HEATMAPS = False


def outputs(net, layers, rgb, ir, heatmap) -> Outputs:
    """f_ID of P stripes, each the bilinear pooling of F_id2 and F_P."""
    del heatmap
    backbone = layers, net.backbone, net.width, net.blocks
    F_S = TwoStream(*backbone, name="streams")(rgb, ir)
    F_id2 = ReidBranch(*backbone, name="reid")(F_S)
    branch = PoseBranch(
        layers, net.pose_width, F_id2.shape[-1], net.heatmaps, net.mask_relu, name="pose"
    )
    pose = branch(F_S)
    F_ID, F_P = net.perturbed("F_ID", F_id2), net.perturbed("F_P", pose["F_P"])
    heads = PartHeads(layers, net.parts, net.features, net.ids, name="parts")
    features, logits = heads(bilinear.pooled(F_ID, F_P, net.parts))  # [P, 2B, F], [P, 2B, N]
    pose["F_P"] = F_P
    return Outputs(id_logits=logits, id_features=features, F_S=F_S, F_id2=F_id2, F_ID=F_ID, **pose)
