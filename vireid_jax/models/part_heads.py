"""Eq. 10-11 and 14: horizontal stripes, one head for each, and the teacher head PCB_T."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax.models.layers import Layers, at_least_float32

FEATURE_NORM = 5.0
LEAK = 0.1
_TINY = 1e-30  # below it a squared length counts as this, so that values and gradients stay finite


def _norm_init(key, shape, dtype=jnp.float32):
    return 1.0 + 0.01 * jax.random.normal(key, shape, dtype)


def stripes(x, parts):
    """Eq. 10: averages of `parts` horizontal stripes, [B, h, w, C] -> [P, B, C] in float32.

    The stripes are h - s (P - 1) rows high and s = floor(h / P) rows apart, so that they overlap
    where P does not divide h.
    """
    step = x.shape[1] // parts
    height = x.shape[1] - step * (parts - 1)
    rows = x.mean(2, dtype=jnp.promote_types(jnp.float32, x.dtype))  # [B, h, C]
    return jnp.stack([rows[:, i * step : i * step + height].mean(1) for i in range(parts)])


def normalised(f):
    """`f` [..., F] scaled to length 5, as the published code's features; zero stays zero."""
    length = jnp.sqrt(jnp.maximum(jnp.square(f).sum(-1, keepdims=True), _TINY))
    return FEATURE_NORM * f / length


class Head(nn.Module):
    """FC, BatchNorm and classifier: [B, C] -> features [B, F], logits [B, N] in float32."""

    layers: Layers
    features: int
    ids: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        layers = self.layers
        fc = layers.dense(self.features, before_norm=True, init=layers.init.fc, name="fc")
        f = fc(x.astype(layers.dtype))
        f = layers.norm(scale_init=_norm_init, name="norm")(f)
        y = nn.leaky_relu(f, LEAK)
        logits = layers.dense(self.ids, init=layers.init.classifier, name="classifier")(y)
        return at_least_float32(f), at_least_float32(logits)


class PartHeads(nn.Module):
    """One `Head` for each of `count` stripes, as one batched module.

    [count, B, C] -> features [count, B, F] scaled to length 5, logits [count, B, N].
    """

    layers: Layers
    count: int
    features: int
    ids: int

    @nn.compact
    def __call__(self, x):
        """See the class."""
        heads = nn.vmap(
            Head,
            variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
            split_rngs={"params": True},
            axis_size=self.count,
        )
        f, logits = heads(self.layers, self.features, self.ids, name="heads")(x)
        return normalised(f), logits


class Teacher(nn.Module):
    """PCB_T (Fig. 3): unmasked identity and keypoint features, pooled, through one `Head`."""

    layers: Layers
    features: int
    ids: int

    @nn.compact
    def __call__(self, F_id2, F_P):
        """[B, h, w, C] twice -> logits [B, N]."""
        pooled = jnp.concatenate([stripes(x, 1)[0] for x in (F_id2, F_P)], -1)
        return Head(self.layers, self.features, self.ids, name="head")(pooled)[1]
