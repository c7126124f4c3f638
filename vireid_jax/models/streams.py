"""Eq. 1: a module of its own for each modality, then a shared one."""

import flax.linen as nn
import jax.numpy as jnp

from vireid_jax.models import resnet
from vireid_jax.models.layers import Layers


class SpecificModule(nn.Module):
    """ConvB1 and ConvB2 of one modality: [B, H, W, 3] -> F_m [B, H/4, W/4, 4 width]."""

    layers: Layers
    width: int
    blocks: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        x = resnet.Stem(self.layers, self.width, name="stem")(x)
        return resnet.Stage(self.layers, self.width, self.blocks, name="layer1")(x)


class TwoStream(nn.Module):
    """F_S = ConvB3([F_RGB, F_IR]_b), [2B, H/8, W/8, 8 width]; RGB rows first.

    Attributes:
      width: channels of the stem (64 in ResNet-50).
      blocks: bottlenecks in layer1 and layer2.
    """

    layers: Layers
    width: int
    blocks: tuple[int, int]

    @nn.compact
    def __call__(self, rgb, ir):
        """Images [B, H, W, 3] normalised; one of the two may be None: the other's rows only."""
        specific = [
            SpecificModule(self.layers, self.width, self.blocks[0], name=name)(images)
            for name, images in (("rgb", rgb), ("ir", ir))
            if images is not None
        ]
        shared = resnet.Stage(self.layers, 2 * self.width, self.blocks[1], strides=2, name="layer2")
        return shared(jnp.concatenate(specific))
