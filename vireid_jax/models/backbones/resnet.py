"""ResNet with bottleneck blocks, as torchvision's v1.5 (stride on the 3x3), last stride taken out.

Width 64 and blocks (3, 4, 6, 3) are ResNet-50; its 2048 channels at the end are 32 times the width.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax.models.layers import Layers, gradient_at_once, kaiming

EXPANSION = 4
STAGES = 4


def specific(layers, width, blocks, x):
    """ConvB1 and ConvB2: [B, H, W, 3] -> [B, H/4, W/4, 4 width]."""
    x = Stem(layers, width, name="stem")(x)
    return Stage(layers, width, blocks[0], name="layer1")(x)


def shared(layers, width, blocks, x):
    """ConvB3: [B, H/4, W/4, 4 width] -> [B, H/8, W/8, 8 width]."""
    return Stage(layers, 2 * width, blocks[1], strides=2, name="layer2")(x)


def identity(layers, width, blocks, x):
    """ConvB4 and ConvB5: [B, H/8, W/8, 8 width] -> [B, H/16, W/16, 32 width]."""
    x = Stage(layers, 4 * width, blocks[2], strides=2, name="layer3")(x)
    return Stage(layers, 8 * width, blocks[3], name="layer4")(x)


class Stem(nn.Module):
    """`layer0`: 7x7 convolution and max pooling, [B, H, W, 3] -> [B, H/4, W/4, width]."""

    layers: Layers
    width: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        conv = self.layers.conv(self.width, 7, strides=2, init=kaiming, name="conv1")
        return _max_pool(nn.relu(self.layers.conv_and_norm(conv, "bn1", x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided), 1x1 and the identity: [B, h, w, C] -> [B, h/s, w/s, 4 width]."""

    layers: Layers
    width: int
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        """See the class."""
        conv, both = partial(self.layers.conv, init=kaiming), self.layers.conv_and_norm
        out = EXPANSION * self.width
        y = nn.relu(both(conv(self.width, 1, name="conv1"), "bn1", x))
        y = nn.relu(both(conv(self.width, strides=self.strides, name="conv2"), "bn2", y))
        y = both(conv(out, 1, name="conv3"), "bn3", y)
        if x.shape != y.shape:
            shortcut = conv(out, 1, strides=self.strides, name="downsample_conv")
            x = both(shortcut, "downsample_bn", x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """`layer1` to `layer4`: `blocks` bottlenecks, the first with `strides`."""

    layers: Layers
    width: int
    blocks: int
    strides: int = 1

    @nn.compact
    def __call__(self, x):
        """[B, h, w, C] -> [B, h/s, w/s, 4 width]."""
        block = self.layers.block(Bottleneck)
        for i in range(self.blocks):
            strides = self.strides if i == 0 else 1
            x = block(self.layers, self.width, strides, name=f"block{i}")(x)
        return x


def _max_pool(x):
    """3x3, stride 2, padding 1 over even sizes, as maxima of strided slices.

    XLA's gradient of its own pooling scatters, which takes a CPU ten times as long.
    """
    return _maxima(gradient_at_once(_maxima(x, 1)), 2)


def _maxima(x, axis):
    size, edge = x.shape[axis], [(0, 0)] * 4
    edge[axis] = (1, 0)
    x = jnp.pad(x, edge, constant_values=-jnp.inf)
    even, odd, last = (
        jax.lax.slice_in_dim(x, first, first + size - 1, 2, axis) for first in (0, 1, 2)
    )
    return jnp.maximum(jnp.maximum(even, odd), last)
