"""PABR for two modalities (Sec. IV-C): appearance and pose features, fused by bilinear pooling.

After "Part-Aligned Bilinear Representations for Person Re-identification" (Suh et al., ECCV 2018).
The pose branch has no loss of its own: what it looks at, identities alone teach it.
"""

from vireid_jax.models import bilinear
from vireid_jax.models.architectures import identity_features, pose_features
from vireid_jax.models.part_heads import PartHeads
from vireid_jax.types import Outputs

NEEDS_HEATMAPS = False


def outputs(net, layers, rgb, ir, heatmap) -> Outputs:
    """f_ID of P stripes, each the bilinear pooling of F_id2 and F_P."""
    del heatmap
    F_S, F_id2 = identity_features(net, layers, rgb, ir)
    F_ID = net.perturbed("F_ID", F_id2)
    pose = pose_features(net, layers, F_S, F_id2)
    heads = PartHeads(layers, net.parts, net.features, net.ids, name="parts")
    pooled = bilinear.pooled(F_ID, pose["F_P"], net.parts)
    features, logits = heads(pooled)  # [P, 2B, F], [P, 2B, N]
    return Outputs(id_logits=logits, id_features=features, F_S=F_S, F_id2=F_id2, F_ID=F_ID, **pose)
