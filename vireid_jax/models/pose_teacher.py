"""The pose estimator behind L_pose: "Global Context for Convolutional Pose Machines" (Osokin 2019).

It shares `refinement` with the pose branch of the re-identification network.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax.models.layers import ConvBlock, Layers
from vireid_jax.models.refinement import RefinementStage

STRIDE = 8  # of the maps
MAPS = 17  # LIP's 16 joints and the background

# Channels (at width 128), stride and dilation of MobileNet-v1's separable blocks; stride 8 from the
# fourth on.
_SEPARABLE = (
    (64, 1, 1),
    (128, 2, 1),
    (128, 1, 1),
    (256, 2, 1),
    (256, 1, 1),
    (512, 1, 1),
    (512, 1, 2),
    *[(512, 1, 1)] * 4,
)


class SeparableBlock(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution, each with BatchNorm and ReLU.

    [B, h, w, C] -> [B, h/s, w/s, features].
    """

    layers: Layers
    features: int
    strides: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x):
        """See the class."""
        layers, channels = self.layers, x.shape[-1]
        depthwise = layers.conv(
            channels,
            strides=self.strides,
            dilation=self.dilation,
            groups=channels,
            name="depthwise",
        )
        x = nn.relu(layers.conv_and_norm(depthwise, "depthwise_norm", x))
        pointwise = layers.conv(self.features, 1, name="pointwise")
        return nn.relu(layers.conv_and_norm(pointwise, "pointwise_norm", x))


class PoseTeacher(nn.Module):
    """Images -> keypoint maps of the initial and of every refinement stage.

    Attributes:
      stages: refinement stages; 5 in training and validation of the published network.
      width: channels of the refinement stages, and all others in proportion; 128 as published.
    """

    layers: Layers
    stages: int = 5
    width: int = 128

    @nn.compact
    def __call__(self, x) -> jax.Array:
        """Runs all stages.

        Args:
          x: [B, H, W, 3], BGR, (value - 128) / 256.

        Returns:
          [1 + stages, B, H/8, W/8, 17]; the last stage's maps are the prediction.
        """
        layers, width = self.layers, self.width
        x = ConvBlock(layers, width // 4, strides=2, name="stem")(x)
        for i, (channels, *block) in enumerate(_SEPARABLE, 1):
            x = SeparableBlock(layers, channels * width // 128, *block, name=f"separable{i}")(x)
        x = ConvBlock(layers, 2 * width, bias=True, name="cpm_0")(x)
        features = ConvBlock(layers, width, bias=True, name="cpm_1")(x)
        x = features
        for i in range(3):
            x = ConvBlock(layers, width, bias=True, name=f"initial_{i}")(x)
        x = nn.relu(layers.conv(4 * width, 1, bias=True, name="initial_heatmap_0")(x))
        maps = [layers.conv(MAPS, 1, bias=True, name="initial_heatmap_1")(x)]
        for i in range(self.stages):
            refine = RefinementStage(layers, width, MAPS, name=f"refinement_{i}")
            maps.append(refine(jnp.concatenate([features, maps[-1]], -1))[1])
        return jnp.stack(maps)
