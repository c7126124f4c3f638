"""Blocks of both networks in plain PyTorch, with the published names of their tensors."""

import torch
from torch import nn
from torch.nn import functional


def conv_block(inputs, outputs, kernel=3, *, stride=1, dilation=1, groups=1, bias=True):
    """Convolution, BatchNorm, ReLU."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
    return nn.Sequential(*before_norm(convolution, nn.BatchNorm2d(outputs)), nn.ReLU(inplace=True))


def before_norm(layer, norm):
    """Both. BatchNorm takes a bias away: what is computed as its gradient is rounding, not kept."""
    if layer.bias is not None:
        layer.bias.register_hook(torch.zeros_like)
    return layer, norm


def pointwise(inputs, outputs, relu):
    """1x1 convolution with bias, without BatchNorm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), *[nn.ReLU(inplace=True)] * relu)


class UBlock(nn.Module):
    """Two strided encoders, two decoders over upsampled maps."""

    def __init__(self, c):
        super().__init__()
        self.encoder1 = nn.Sequential(conv_block(c, 2 * c, stride=2), conv_block(2 * c, 2 * c))
        self.encoder2 = nn.Sequential(conv_block(2 * c, 2 * c, stride=2), conv_block(2 * c, 2 * c))
        self.decoder2 = nn.Sequential(conv_block(4 * c, 2 * c), conv_block(2 * c, 2 * c))
        self.decoder1 = nn.Sequential(conv_block(3 * c, 2 * c), conv_block(2 * c, c))

    def forward(self, x):
        e1 = self.encoder1(x)
        d2 = self.decoder2(torch.cat([e1, _like(self.encoder2(e1), e1)], 1))
        return self.decoder1(torch.cat([x, _like(d2, x)], 1))


class RefineBlock(nn.Module):
    """A projection plus two convolutions, the second dilated."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.initial = pointwise(inputs, outputs, relu=True)
        self.trunk = nn.Sequential(
            conv_block(outputs, outputs), conv_block(outputs, outputs, dilation=2)
        )

    def forward(self, x):
        x = self.initial(x)
        return x + self.trunk(x)


class RefinementStage(nn.Module):
    """Features -> refined features and heatmaps."""

    def __init__(self, inputs, features, heatmaps):
        super().__init__()
        blocks = [RefineBlock(c, features) for c in (inputs, features, features)]
        self.trunk = nn.Sequential(UBlock(inputs), *blocks)
        self.heatmaps = nn.Sequential(
            pointwise(features, features, relu=True), pointwise(features, heatmaps, relu=False)
        )

    def forward(self, x):
        x = self.trunk(x)
        return x, self.heatmaps(x)


def _like(x, other):
    return functional.interpolate(x, other.shape[2:], mode="bilinear", align_corners=False)
