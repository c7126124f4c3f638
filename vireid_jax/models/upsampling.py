"""Bilinear upsampling with half-pixel centres, as each backend computes it fastest."""

from functools import partial

import jax
import jax.numpy as jnp

from vireid_jax.models.layers import at_least_float32, gradient_at_once


def upsample(x: jax.Array, like: jax.Array) -> jax.Array:
    """x [B, h, w, C] at the size of `like` [B, H, W, .] (PyTorch's align_corners=False).

    `jax.image.resize` multiplies with matrices of weights, which suits CPUs and TPUs. A GPU would
    transpose x for each of them, and can make sums of neighbours a part of what follows.
    """
    size = like.shape[1:3]
    if jax.default_backend() == "gpu" and size == (2 * x.shape[1], 2 * x.shape[2]):
        return doubled(x)
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear").astype(x.dtype)


def doubled(x: jax.Array) -> jax.Array:
    """x [B, h, w, C] at twice the size, as sums of neighbours: columns behind rows.

    Sums are in float32 at least, and what is between both is in the type of x.
    """
    y = gradient_at_once(_doubled(at_least_float32(x), 1).astype(x.dtype))
    return _doubled(at_least_float32(y), 2).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _doubled(x, axis):
    """Of a pixel come two: three quarters of it and one of the neighbour at that side.

    Its gradient is the same kind of sum; that of slices would be one of padded arrays.
    """
    before, after = _beside(x, x, axis)
    y = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return y.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


def _doubled_backward(axis, _, dy):
    first, second = (jax.lax.slice_in_dim(dy, i, None, 2, axis) for i in (0, 1))
    before, after = _beside(first, second, axis)
    return (0.75 * (first + second) + 0.25 * (before + after),)


_doubled.defvjp(lambda x, axis: (_doubled(x, axis), None), _doubled_backward)


def _beside(first, second, axis):
    """What `second` has before each pixel and `first` behind it; at an edge the other, there."""
    part = partial(jax.lax.slice_in_dim, axis=axis)
    before = jnp.concatenate([part(first, 0, 1), part(second, 0, -1)], axis)
    return before, jnp.concatenate([part(first, 1, None), part(second, -1, None)], axis)
