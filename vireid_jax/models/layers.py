"""Convolution and BatchNorm as the published network builds them: one place for both."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_xavier = nn.initializers.xavier_uniform()
_classifier = nn.initializers.normal(0.001)


@dataclasses.dataclass(frozen=True)
class Initializers:
    """Of the kernels outside the backbone.

    Attributes:
      conv: of convolutions.
      transposed: of transposed convolutions.
      fc: of the fully connected layers of the heads.
      classifier: of their classifiers.
    """

    conv: Callable
    transposed: Callable
    fc: Callable
    classifier: Callable


# The paper says Xavier (Sec. IV-A); its code leaves convolutions at PyTorch's default, uniform in
# 1 / sqrt(fan_in), and has normal distributions in the heads.
INITIALIZERS = {
    "paper": Initializers(_xavier, _xavier, kaiming, _classifier),
    "xavier": Initializers(_xavier, _xavier, _xavier, _xavier),
    "published_code": Initializers(
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        # PyTorch takes the outputs of a transposed convolution for its inputs.
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2),
        kaiming,
        _classifier,
    ),
}


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with PyTorch's running statistics.

    The running variance is the unbiased one, n / (n - 1) times the batch variance (Flax's own
    layer stores the biased one, which differs visibly where n is a batch of feature vectors).
    Statistics are kept in float32 at least; under `axis_name` they are those of the global batch.

    Attributes:
      use_running_average: normalise with the running statistics and leave them as they are.
      axis_name: the mapped axis over which a batch is split, or None.
      dtype: of the output.
      scale_init, bias_init: initialisers of the scale and the bias.
    """

    use_running_average: bool
    axis_name: str | None = None
    dtype: Any = jnp.float32
    scale_init: Callable = nn.initializers.ones
    bias_init: Callable = nn.initializers.zeros
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        """Returns `x` [..., C] normalised per channel."""
        channels = x.shape[-1:]
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", self.bias_init, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            axes = tuple(range(x.ndim - 1))
            moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
            count = x.size // x.shape[-1]
            if self.axis_name and not self.is_initializing():
                moments = jax.lax.pmean(moments, self.axis_name)
                count *= jax.lax.axis_size(self.axis_name)
            mean = moments[0]
            var = jnp.maximum(moments[1] - jnp.square(mean), 0.0)
            if not self.is_initializing():
                keep, unbiased = self.momentum, var * (count / max(count - 1, 1))
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """How the network builds its layers: what every module shares, handed down as one value.

    Attributes:
      train: batch statistics (and their update) instead of running ones.
      dtype: of activations; parameters stay float32.
      axis_name: the mapped axis of a split batch, or None (see `BatchNorm`).
      conv_general_dilated: replaces `jax.lax.conv_general_dilated` in every convolution.
      init: how kernels outside the backbone start.
      remat: see `block`.
      norm_bias: where BatchNorm's biases start.
    """

    train: bool
    dtype: Any = jnp.float32
    axis_name: str | None = None
    conv_general_dilated: Callable | None = None
    init: Initializers = INITIALIZERS["paper"]
    remat: bool = False
    norm_bias: float = 0.0

    def block(self, module):
        """`module`, whose inner results backward passes compute again under `remat`."""
        return nn.remat(module) if self.remat and self.train else module

    def conv(
        self,
        features,
        kernel=3,
        *,
        strides=1,
        dilation=1,
        groups=1,
        bias=False,
        init=None,
        name,
    ):
        """A square convolution padded as PyTorch's `padding = dilation * (kernel // 2)`."""
        pad = dilation * (kernel // 2)
        return nn.Conv(
            features,
            (kernel, kernel),
            strides=strides,
            padding=((pad, pad), (pad, pad)),
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=init or self.init.conv,
            conv_general_dilated=self.conv_general_dilated,
            name=name,
        )

    def transposed_conv(self, features, *, name):
        """PyTorch's ConvTranspose2d(kernel 3, stride 2, padding 1, output padding 1, no bias)."""
        return nn.Conv(
            features,
            (3, 3),
            input_dilation=2,
            padding=((1, 2), (1, 2)),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.init.transposed,
            conv_general_dilated=self.conv_general_dilated,
            name=name,
        )

    def norm(self, *, scale_init=nn.initializers.ones, name):
        """A `BatchNorm` in this mode."""
        bias_init = nn.initializers.constant(self.norm_bias)
        return BatchNorm(
            not self.train, self.axis_name, self.dtype, scale_init, bias_init, name=name
        )

    def dense(self, features, *, init, name):
        """A fully connected layer with bias 0 at the start."""
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)


class ConvBlock(nn.Module):
    """Convolution, BatchNorm and (unless `relu=False`) ReLU: [B, h, w, C] -> [B, h', w', features].

    Spatial size is divided by `strides`, rounded up.
    """

    layers: Layers
    features: int
    kernel: int = 3
    strides: int = 1
    dilation: int = 1
    bias: bool = False
    relu: bool = True

    @nn.compact
    def __call__(self, x):
        """See the class."""
        conv = self.layers.conv(
            self.features,
            self.kernel,
            strides=self.strides,
            dilation=self.dilation,
            bias=self.bias,
            name="conv",
        )
        x = self.layers.norm(name="norm")(conv(x))
        return nn.relu(x) if self.relu else x
