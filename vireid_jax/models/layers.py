"""Convolution and BatchNorm as the published network builds them: one place for both."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vireid_jax.models.channel_sums import channel_sums

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
        if self.use_running_average:
            factor, shift = self.factor_and_shift()
            y = at_least_float32(x) * factor + shift
        else:
            axis_name = None if self.is_initializing() else self.axis_name
            y, mean, var = _batch_normalised(x, scale, bias, self.epsilon, axis_name)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                if axis_name:
                    count *= jax.lax.axis_size(axis_name)
                keep, unbiased = self.momentum, var * (count / max(count - 1, 1))
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        return y.astype(self.dtype)

    def factor_and_shift(self):
        """What the layer multiplies by and adds at test time, [C] each."""
        own, running = self.variables["params"], self.variables["batch_stats"]
        return _factor_and_shift(
            own["scale"], own["bias"], running["mean"], running["var"], self.epsilon
        )


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _batch_normalised(x, scale, bias, epsilon, axis_name):
    """`x` [..., C] normalised by its own statistics, and these; gradients flow through the first.

    With x' = (x - mean) / sqrt(var + epsilon) and y = scale x' + bias, means over the batch,

      dx = scale / sqrt(var + epsilon) (dy - mean(dy) - x' mean(dy x'))
    """
    x = at_least_float32(x)
    moments = channel_sums(x, x) / (x.size // x.shape[-1])
    if axis_name:
        moments = jax.lax.pmean(moments, axis_name)
    mean = moments[0]
    var = jnp.maximum(moments[1] - jnp.square(mean), 0.0)
    factor, shift = _factor_and_shift(scale, bias, mean, var, epsilon)
    return x * factor + shift, mean, var


def _batch_normalised_forward(x, scale, bias, epsilon, axis_name):
    y, mean, var = _batch_normalised(x, scale, bias, epsilon, axis_name)
    return (y, mean, var), (x, scale, mean, jax.lax.rsqrt(var + epsilon))


def _batch_normalised_backward(epsilon, axis_name, kept, gradients):
    kept_x, scale, mean, inverse = kept  # kept_x as it came, in half precision perhaps
    x, dy = at_least_float32(kept_x), gradients[0]
    dbias, products = channel_sums(dy, x)
    dscale = (products - mean * dbias) * inverse
    means = jnp.stack([dbias, dscale]) / (x.size // x.shape[-1])
    if axis_name:
        means = jax.lax.pmean(means, axis_name)
    slope = means[1] * inverse
    dx = scale * inverse * (dy - x * slope + (mean * slope - means[0]))
    return dx.astype(kept_x.dtype), dscale, dbias


_batch_normalised.defvjp(_batch_normalised_forward, _batch_normalised_backward)


def gradient_at_once(x):
    """`x`; on a GPU its gradient is computed once, and not again in all that XLA fuses it into."""
    return _gradient_at_once(x) if jax.default_backend() == "gpu" else x


@jax.custom_vjp
def _gradient_at_once(x):
    return x


_gradient_at_once.defvjp(
    lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),)
)


def at_least_float32(x):
    """`x`, in float32 if it was in half precision."""
    return x.astype(jnp.promote_types(jnp.float32, x.dtype))


def _factor_and_shift(scale, bias, mean, var, epsilon):
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return factor, bias - mean * factor


def _bias_without_gradient(inputs, kernel, bias, **options):
    """`promote_dtype` with a bias that does not learn."""
    return promote_dtype(inputs, kernel, jax.lax.stop_gradient(bias), **options)


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
        before_norm=False,
        init=None,
        name,
    ):
        """A square convolution padded as PyTorch's `padding = dilation * (kernel // 2)`.

        For `before_norm` see `_promote`.
        """
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
            promote_dtype=self._promote(before_norm),
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

    def conv_and_norm(self, conv, norm: str, x):
        """BatchNorm over a convolution: [B, h, w, C] -> [B, h', w', features] in `dtype`.

        At test time both are one convolution, which saves a GPU a pass over memory; in half
        precision s is then rounded before it is added:

          f (x * W + b) + s = x * f W + (f b + s)

        Args:
          conv: a layer of the calling module, with a name and not called yet.
          norm: name of the other.
          x: images.
        """
        norm = self.norm(name=norm)
        if self.train or norm.is_initializing():
            return norm(conv(x))
        factor, shift = norm.factor_and_shift()
        own = conv.variables["params"]
        bias = factor * own["bias"] + shift if conv.use_bias else shift
        both = conv.clone(parent=None, use_bias=True)
        return both.apply({"params": {"kernel": factor * own["kernel"], "bias": bias}}, x)

    def dense(self, features, *, before_norm=False, init, name):
        """A fully connected layer with bias 0 at the start; for `before_norm` see `_promote`."""
        promote = self._promote(before_norm)
        return nn.Dense(
            features, dtype=self.dtype, kernel_init=init, promote_dtype=promote, name=name
        )

    def _promote(self, before_norm):
        """Where Flax's layers bring their arrays to one dtype, and what else is done there.

        Batch statistics take away what a bias before them adds: its gradient in training is zero
        but for rounding, and made zero; weight decay still acts on it.
        """
        return _bias_without_gradient if before_norm and self.train else promote_dtype


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
            before_norm=True,
            name="conv",
        )
        x = self.layers.conv_and_norm(conv, "norm", x)
        return nn.relu(x) if self.relu else x
