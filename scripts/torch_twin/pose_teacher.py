"""The pose teacher (GCCPM with MobileNet-v1) in plain PyTorch."""

import torch
from torch import nn

from blocks import RefinementStage, conv_block, pointwise

MAPS = 17
_SEPARABLE = (
    (64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (512, 1, 1), (512, 1, 2),
    *[(512, 1, 1)] * 4,
)  # fmt: skip


def separable(inputs, outputs, stride, dilation):
    """Depthwise 3x3 and 1x1, each with BatchNorm and ReLU, in one run of six."""
    depthwise = conv_block(
        inputs, inputs, stride=stride, dilation=dilation, groups=inputs, bias=False
    )
    return nn.Sequential(*depthwise, *conv_block(inputs, outputs, 1, bias=False))


class PoseTeacher(nn.Module):
    """[B, 3, H, W] -> maps [B, 17, H/8, W/8] of the last stage."""

    def __init__(self, stages=5, width=128):
        super().__init__()
        inputs, trunk = width // 4, [conv_block(3, width // 4, stride=2, bias=False)]
        for channels, stride, dilation in _SEPARABLE:
            outputs = channels * width // 128
            trunk.append(separable(inputs, outputs, stride, dilation))
            inputs = outputs
        self.model = nn.Sequential(*trunk)
        self.cpm = nn.Sequential(conv_block(inputs, 2 * width), conv_block(2 * width, width))
        self.initial_stage = nn.Module()
        self.initial_stage.trunk = nn.Sequential(*[conv_block(width, width) for _ in range(3)])
        self.initial_stage.heatmaps = nn.Sequential(
            pointwise(width, 4 * width, relu=True), pointwise(4 * width, MAPS, relu=False)
        )
        self.refinement_stages = nn.ModuleList(
            RefinementStage(width + MAPS, width, MAPS) for _ in range(stages)
        )

    def forward(self, x):
        features = self.cpm(self.model(x))
        maps = self.initial_stage.heatmaps(self.initial_stage.trunk(features))
        for stage in self.refinement_stages:
            _, maps = stage(torch.cat([features, maps], 1))
        return maps
