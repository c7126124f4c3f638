"""PGFA for two modalities (Sec. IV-C): an extractor for each, that looks where keypoints are.

After "Pose-Guided Feature Alignment for Occluded Person Re-identification" (Miao et al., ICCV
2019), whose pose estimator is fixed; its landmarks here are the heatmaps beside the images. The
modalities share nothing.
"""

from types import ModuleType

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax.models.layers import Layers
from vireid_jax.models.network import HEATMAP_STRIDE, STRIDE
from vireid_jax.models.part_heads import PartHeads, stripes
from vireid_jax.models.reid_branch import ReidBranch
from vireid_jax.types import Outputs

NEEDS_HEATMAPS = True
_JOINTS = 16  # a channel behind them is the background
_BLOCK = STRIDE // HEATMAP_STRIDE


def outputs(net, layers, rgb, ir, heatmap) -> Outputs:
    """f_ID of P stripes of F_ID, the product of F_id2 and `attention`."""
    there = [(name, x) for name, x in (("rgb", rgb), ("ir", ir)) if x is not None]
    maps = jnp.split(attention(heatmap).astype(layers.dtype), len(there))
    build = layers, net.backbone, net.width, net.blocks, net.parts, net.features, net.ids
    found = [
        Extractor(*build, name=name)(x, own) for (name, x), own in zip(there, maps, strict=True)
    ]
    # Rows come first in maps [B, h, w, C], second in what heads make, [P, B, .].
    return jax.tree.map(lambda *x: jnp.concatenate(x, 0 if x[0].ndim == 4 else 1), *found)


def attention(heatmap):
    """Of each place its highest joint, averaged to the size of F_id2.

    Args:
      heatmap: in [0, 1], [B, h, w, J], merged or by joints.

    Returns:
      [B, h / 4, w / 4, 1], rounded up.
    """
    highest = heatmap[..., :_JOINTS].max(-1, keepdims=True)
    margins = [(0, -size % _BLOCK) for size in highest.shape[1:3]]
    block = _BLOCK, _BLOCK
    return nn.avg_pool(highest, block, block, margins, count_include_pad=False)


class Extractor(nn.Module):
    """All of one modality: images [B, H, W, 3], attention [B, h, w, 1] -> its `Outputs`."""

    layers: Layers
    backbone: ModuleType
    width: int
    blocks: tuple[int, ...]
    parts: int
    features: int
    ids: int

    @nn.compact
    def __call__(self, x, attention):
        """See the class."""
        backbone = self.layers, self.backbone, self.width, self.blocks
        F_S = Stream(*backbone, name="streams")(x)
        F_id2 = ReidBranch(*backbone, name="reid")(F_S)
        F_ID = attention * F_id2
        heads = PartHeads(self.layers, self.parts, self.features, self.ids, name="parts")
        features, logits = heads(stripes(F_ID, self.parts))
        return Outputs(id_logits=logits, id_features=features, F_S=F_S, F_id2=F_id2, F_ID=F_ID)


class Stream(nn.Module):
    """What two-stream networks have of each modality and what they share, of one modality alone."""

    layers: Layers
    backbone: ModuleType
    width: int
    blocks: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        """[B, H, W, 3] -> F_S [B, H/8, W/8, .]."""
        x = self.backbone.specific(self.layers, self.width, self.blocks, x)
        return self.backbone.shared(self.layers, self.width, self.blocks, x)
