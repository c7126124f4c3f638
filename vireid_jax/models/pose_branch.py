"""Eq. 2-6: from modality-shared features to keypoint heatmaps and keypoint features."""

import flax.linen as nn
import jax.numpy as jnp

from vireid_jax.models.layers import ConvBlock, Layers
from vireid_jax.models.refinement import RefinementStage


class PoseBranch(nn.Module):
    """F_S [B, h, w, C] -> heatmaps and keypoint features.

    `reduce`, which makes an initial heatmap beside F_p2, follows the published code; the paper's
    text does not have it.

    Attributes:
      width: of the branch; at the published 64 it has 256, 128 and 512 channels.
      out: channels of F_P, those of F_id2.
      heatmaps: J.
      relu: behind the last 1x1 convolution, as the paper's text says; the published code has none,
        and with one the mask could not fall below 1/2.
    """

    layers: Layers
    width: int
    out: int
    heatmaps: int
    relu: bool = False

    @nn.compact
    def __call__(self, F_S):
        """Runs the branch.

        Returns:
          A dict by symbol: F_p1 [B, h, w, 4 width], F_p2 and F_R [B, 2h, 2w, 2 width], heatmap
          [B, 2h, 2w, J], F_P [B, h/2, w/2, out].
        """
        layers, width = self.layers, self.width
        F_p1 = ConvBlock(layers, 4 * width, name="conv1")(F_S)
        deconv = layers.transposed_conv(2 * width, name="dconv2")
        F_p2 = nn.relu(layers.conv_and_norm(deconv, "dconv2_norm", F_p1))
        initial = ConvBlock(layers, self.heatmaps, name="reduce")(F_p2)
        refinement = RefinementStage(layers, 2 * width, self.heatmaps, name="refinement")
        F_R, heatmap = refinement(jnp.concatenate([F_p2, initial], -1))
        x = ConvBlock(layers, 4 * width, strides=2, name="conv3")(F_R) + F_p1
        x = ConvBlock(layers, 8 * width, strides=2, name="conv_b6_0")(x)
        F_P = ConvBlock(layers, self.out, kernel=1, relu=self.relu, name="conv_b6_1")(x)
        return {"F_p1": F_p1, "F_p2": F_p2, "F_R": F_R, "heatmap": heatmap, "F_P": F_P}
