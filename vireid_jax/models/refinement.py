"""Eq. 3-4: the refinement module of "Global Context for Convolutional Pose Machines"."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from vireid_jax.models.layers import ConvBlock, Layers
from vireid_jax.models.upsampling import upsample


class UBlock(nn.Module):
    """U-shaped context: two strided encoders, two decoders over upsampled maps.

    [B, h, w, c] -> [B, h, w, c]; any h, w of at least 2, odd ones included.
    """

    layers: Layers

    @nn.compact
    def __call__(self, x):
        """See the class."""
        c = x.shape[-1]
        block = partial(ConvBlock, self.layers, bias=True)
        e1 = block(2 * c, strides=2, name="encoder1_0")(x)
        e1 = block(2 * c, name="encoder1_1")(e1)  # [B, h/2, w/2, 2c]
        e2 = block(2 * c, strides=2, name="encoder2_0")(e1)
        e2 = block(2 * c, name="encoder2_1")(e2)  # [B, h/4, w/4, 2c]
        d2 = jnp.concatenate([e1, upsample(e2, e1)], -1)
        d2 = block(2 * c, name="decoder2_0")(d2)
        d2 = block(2 * c, name="decoder2_1")(d2)
        d1 = jnp.concatenate([x, upsample(d2, x)], -1)
        d1 = block(2 * c, name="decoder1_0")(d1)
        return block(c, name="decoder1_1")(d1)


class RefineBlock(nn.Module):
    """A 1x1 projection plus two 3x3 (the second dilated): [B, h, w, C] -> [B, h, w, features]."""

    layers: Layers
    features: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        x = nn.relu(self.layers.conv(self.features, 1, bias=True, name="initial")(x))
        y = ConvBlock(self.layers, self.features, bias=True, name="trunk_0")(x)
        return x + ConvBlock(self.layers, self.features, dilation=2, bias=True, name="trunk_1")(y)


class RefinementStage(nn.Module):
    """RM_F and RM_H: features [B, h, w, c] -> F_R [B, h, w, features], H-hat [B, h, w, heatmaps].

    The heatmap output is linear.
    """

    layers: Layers
    features: int
    heatmaps: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        layers = self.layers
        x = layers.block(UBlock)(layers, name="u_block")(x)
        for i in (1, 2, 3):
            x = layers.block(RefineBlock)(layers, self.features, name=f"refine{i}")(x)
        y = nn.relu(layers.conv(self.features, 1, bias=True, name="heatmap_0")(x))
        return x, layers.conv(self.heatmaps, 1, bias=True, name="heatmap_1")(y)
