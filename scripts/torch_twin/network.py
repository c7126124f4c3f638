"""The two-stream network with pose branch, mask, part heads and teacher in plain PyTorch.

Tensors have their published names, so that `load_state_dict` takes published weights.
"""

import torch
from torch import nn
from torch.nn import functional

from blocks import RefinementStage, before_norm, conv_block

LEAK = 0.1
FEATURE_NORM = 5.0
EXPANSION = 4


class Bottleneck(nn.Module):
    """ResNet v1.5's block: 1x1, 3x3 (strided), 1x1 and the identity."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def stage(inputs, width, blocks, stride=1):
    """layer1 to layer4: the first block strided."""
    first = Bottleneck(inputs, width, stride)
    return nn.Sequential(
        first, *[Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)]
    )


class Stream(nn.Module):
    """ConvB1 and ConvB2 of one modality: [B, 3, H, W] -> [B, 4 width, H/4, W/4]."""

    def __init__(self, width, blocks):
        super().__init__()
        self.b1 = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.b2 = stage(width, width, blocks)

    def forward(self, x):
        return self.b2(self.b1(x))


class Feature(nn.Module):
    """Fully connected layer and BatchNorm."""

    def __init__(self, inputs, outputs):
        super().__init__()
        layers = before_norm(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))
        self.feat_block = nn.Sequential(*layers)

    def forward(self, x):
        return self.feat_block(x)


class Classifier(nn.Module):
    """Leaky ReLU and fully connected layer."""

    def __init__(self, inputs, ids):
        super().__init__()
        self.classifier = nn.Sequential(nn.LeakyReLU(LEAK), nn.Linear(inputs, ids))

    def forward(self, x):
        return self.classifier(x)


class Deconvolution(nn.Module):
    """DConv2, to twice the size."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.deconv = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.deconv(x)


class Shared(nn.Module):
    """Both branches over features of both modalities, and the teacher.

    [B, 4 width, h, w] -> F_id2 and F_P [B, 32 width, h/4, w/4], heatmap [B, J, h, w], teacher
    logits [B, N].
    """

    def __init__(self, width, pose_width, blocks, teacher_features, ids, heatmaps):
        super().__init__()
        outputs, p = 8 * EXPANSION * width, pose_width
        self.b1 = stage(EXPANSION * width, 2 * width, blocks[1], 2)
        self.b2 = stage(2 * EXPANSION * width, 4 * width, blocks[2], 2)
        self.b3 = stage(4 * EXPANSION * width, 8 * width, blocks[3])
        self.conv4 = conv_block(2 * EXPANSION * width, 4 * p, bias=False)
        self.dconv4 = Deconvolution(4 * p, 2 * p)
        self.reduce = conv_block(2 * p, heatmaps, bias=False)
        self.refinement_stages = nn.ModuleList([RefinementStage(2 * p + heatmaps, 2 * p, heatmaps)])
        self.conv1 = conv_block(2 * p, 4 * p, stride=2, bias=False)
        self.conv2 = conv_block(4 * p, 8 * p, stride=2, bias=False)
        self.conv3 = nn.Sequential(
            nn.Conv2d(8 * p, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.t_fc = Feature(2 * outputs, teacher_features)
        self.t_cla = Classifier(teacher_features, ids)

    def forward(self, x):
        x = self.b1(x)  # F_S
        identity = self.b3(self.b2(x))  # F_id2
        first = self.conv4(x)  # F_p1
        x = self.dconv4(first)  # F_p2
        x, heatmap = self.refinement_stages[0](torch.cat([x, self.reduce(x)], 1))
        pose = self.conv3(self.conv2(self.conv1(x) + first))  # F_P
        pooled = torch.cat([identity, pose], 1).mean((2, 3))
        return identity, pose, heatmap, self.t_cla(self.t_fc(pooled))


class Network(nn.Module):
    """The whole network, by the keys of a config's `model` section."""

    def __init__(self, model, ids, heatmaps=1):
        super().__init__()
        width, blocks, self.parts = model["width"], model["blocks"], model["parts"]
        self.visible_net = Stream(width, blocks[0])
        self.thermal_net = Stream(width, blocks[0])
        self.shared = Shared(
            width, model["pose_width"], blocks, model["teacher_features"], ids, heatmaps
        )
        self.heads = range(1, 2 * self.parts + 1)
        for i in self.heads:
            feature = Feature(8 * EXPANSION * width, model["features"])
            setattr(self, f"feature{i}", feature)
            setattr(self, f"classifier{i}", Classifier(model["features"], ids))

    def forward(self, rgb, ir):
        """Normalised images [B, 3, H, W]; one of the two may be None.

        Returns a dict: features [2P, 2B, F] of length 5 and logits [2P, 2B, N], those of the
        identity branch first; teacher_logits [2B, N]; heatmap [2B, J, H/4, W/4].
        """
        streams = (self.visible_net, rgb), (self.thermal_net, ir)
        x = torch.cat([stream(images) for stream, images in streams if images is not None])
        identity, pose, heatmap, teacher = self.shared(x)
        masked = torch.sigmoid(pose) * identity  # F_ID
        pooled = [part for x in (masked, pose) for part in stripes(x, self.parts)]
        features = [
            getattr(self, f"feature{i}")(x) for i, x in zip(self.heads, pooled, strict=True)
        ]
        logits = [
            getattr(self, f"classifier{i}")(x) for i, x in zip(self.heads, features, strict=True)
        ]
        features = at_least_float32(torch.stack(features))
        return {
            "features": FEATURE_NORM * features / features.norm(dim=-1, keepdim=True),
            "logits": at_least_float32(torch.stack(logits)),
            "teacher_logits": at_least_float32(teacher),
            "heatmap": at_least_float32(heatmap),
        }

    def embed(self, rgb, ir):
        """f_ID [B, P F] and f_ALL [B, 2 P F]."""
        features = self(rgb, ir)["features"].transpose(0, 1)  # [B, 2P, F]
        return {"f_ID": features[:, : self.parts].flatten(1), "f_ALL": features.flatten(1)}


def stripes(x, parts):
    """Averages of horizontal stripes: [B, C, h, w] -> P of [B, C]."""
    height, width = x.shape[2:]
    step = height // parts
    pooled = functional.avg_pool2d(x, (height - step * (parts - 1), width), (step, width))
    return pooled[..., 0].unbind(-1)


def at_least_float32(x):
    """`x`, in float32 if it is coarser."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
