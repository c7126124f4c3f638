"""Architectures, one file each; `config.model.architecture` is its name.

A file has NEEDS_HEATMAPS, whether the network needs keypoint heatmaps beside its images, in
evaluation too, and one function, called inside `network.Network`, which then holds what it makes:

  outputs(net, layers, rgb, ir, heatmap): images [B, H, W, 3], one of the two perhaps None, and
    heatmaps [rows, h, w, J], None where they are not needed -> `Outputs`, RGB rows first

`net` has the fields of `Network`. Submodules that belong to one modality alone are named `rgb` and
`ir`: both start from the same weights.
"""

from vireid_jax.models.pose_branch import PoseBranch
from vireid_jax.models.reid_branch import ReidBranch
from vireid_jax.models.streams import TwoStream


def identity_features(net, layers, rgb, ir):
    """F_S of both modalities (Eq. 1) and F_id2 (Eq. 8), for `outputs`."""
    backbone = layers, net.backbone, net.width, net.blocks
    F_S = TwoStream(*backbone, name="streams")(rgb, ir)
    return F_S, ReidBranch(*backbone, name="reid")(F_S)


def pose_features(net, layers, F_S, F_id2) -> dict:
    """What `PoseBranch` makes of F_S, F_P as wide as F_id2 and open to perturbations."""
    branch = PoseBranch(
        layers, net.pose_width, F_id2.shape[-1], net.heatmaps, net.mask_relu, name="pose"
    )
    pose = branch(F_S)
    return pose | {"F_P": net.perturbed("F_P", pose["F_P"])}
