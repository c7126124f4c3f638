"""Gates that rounding cannot flip, in place of a network's own."""

import contextlib
from unittest import mock

import flax.linen as nn

from vireid_jax.models.backbones import resnet


@contextlib.contextmanager
def gates():
    """Softplus for ReLU in networks traced inside, and averages of 2x2 for the maxima of stems."""

    def leaky(x, slope):
        return slope * x + (1 - slope) * nn.softplus(x)

    with (
        mock.patch.multiple(nn, relu=nn.softplus, leaky_relu=leaky),
        mock.patch.object(resnet, "_max_pool", lambda x: nn.avg_pool(x, (2, 2), (2, 2))),
    ):
        yield
