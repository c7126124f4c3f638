"""Eq. 8: from modality-shared features to identity features, before the mask."""

from types import ModuleType

import flax.linen as nn

from vireid_jax.models.layers import Layers


class ReidBranch(nn.Module):
    """F_S [B, h, w, .] -> F_id2 [B, h/2, w/2, .] (Eq. 8), see `backbones`."""

    layers: Layers
    backbone: ModuleType
    width: int
    blocks: tuple[int, ...]

    @nn.compact
    def __call__(self, F_S):
        """See the class."""
        return self.backbone.identity(self.layers, self.width, self.blocks, F_S)
