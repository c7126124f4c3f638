"""Eq. 8: ConvB4 and ConvB5, ResNet's layer3 and layer4 with the last stride taken out."""

import flax.linen as nn

from vireid_jax.models import resnet
from vireid_jax.models.layers import Layers


class ReidBranch(nn.Module):
    """F_S [B, h, w, 8 width] -> F_id2 [B, h/2, w/2, 32 width].

    Attributes:
      blocks: bottlenecks in layer3 and layer4.
    """

    layers: Layers
    width: int
    blocks: tuple[int, int]

    @nn.compact
    def __call__(self, F_S):
        """See the class."""
        x = resnet.Stage(self.layers, 4 * self.width, self.blocks[0], strides=2, name="layer3")(F_S)
        return resnet.Stage(self.layers, 8 * self.width, self.blocks[1], name="layer4")(x)
