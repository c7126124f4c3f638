"""Gates that rounding cannot flip, in place of a network's own."""

from torch import nn
from torch.nn import functional as F


class LeakySoftplus(nn.Module):
    """A smooth leaky ReLU."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return self.slope * x + (1 - self.slope) * F.softplus(x)


def replace_gates(network):
    """Softplus for ReLU, and averages of 2x2 for maxima, in place."""
    for name, child in network.named_children():
        if isinstance(child, nn.ReLU):
            setattr(network, name, nn.Softplus())
        elif isinstance(child, nn.LeakyReLU):
            setattr(network, name, LeakySoftplus(child.negative_slope))
        elif isinstance(child, nn.MaxPool2d):
            setattr(network, name, nn.AvgPool2d(2))
        else:
            replace_gates(child)
