"""Eq. 1: a module of its own for each modality, then a shared one."""

from types import ModuleType

import flax.linen as nn
import jax.numpy as jnp

from vireid_jax.models.layers import Layers


class SpecificModule(nn.Module):
    """Of one modality: [B, H, W, 3] -> F_m [B, H/4, W/4, .], see `backbones`."""

    layers: Layers
    backbone: ModuleType
    width: int
    blocks: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        """See the class."""
        return self.backbone.specific(self.layers, self.width, self.blocks, x)


class TwoStream(nn.Module):
    """F_S = Shared([F_RGB, F_IR]_b), [2B, H/8, W/8, .]; RGB rows first."""

    layers: Layers
    backbone: ModuleType
    width: int
    blocks: tuple[int, ...]

    @nn.compact
    def __call__(self, rgb, ir):
        """Images [B, H, W, 3] normalised; one of the two may be None: the other's rows only."""
        build = self.layers, self.backbone, self.width, self.blocks
        specific = [
            SpecificModule(*build, name=name)(images)
            for name, images in (("rgb", rgb), ("ir", ir))
            if images is not None
        ]
        return self.backbone.shared(self.layers, self.width, self.blocks, jnp.concatenate(specific))
