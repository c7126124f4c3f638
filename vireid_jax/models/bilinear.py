"""Compact bilinear pooling: inner products of outer products, without the outer products.

Bilinear pooling describes a region by sum_x a(x) b(x)^T, which has C^2 numbers. Its inner product
with another region's is a sum of <a, a'> <b, b'>. A count sketch with places h: [C] -> [D] and
signs s: [C] -> {-1, 1},

  (sketch a)_d = sum_{i: h(i) = d} s(i) a_i,

keeps inner products on average over h and s: those of different i and j come with s(i) s(j), whose
mean is 0. The sketch of a b^T by the places h(i) + g(j) mod D and the signs s(i) t(j) is (Pham and
Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps", KDD 2013)

  sum_ij s(i) t(j) a_i b_j e_{h(i) + g(j) mod D} = sketch a * sketch b,

a circular convolution, which is a product of Fourier transforms. "Compact Bilinear Pooling" (Gao et
al., CVPR 2016) sums it over a region. The transform is linear, so that the sum can come before the
way back.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vireid_jax.models.layers import at_least_float32
from vireid_jax.models.part_heads import stripes

_TINY = 1e-5  # under roots, so that nothing to pool has finite gradients


def pooled(a, b, parts: int):
    """a(x) b(x)^T pooled over `parts` horizontal stripes, [B, h, w, C] twice -> [P, B, C].

    Sketched to D = C numbers, as many as a head gets without b; float32 at least. A stripe's mean
    stands for the sum, whose factor the normalisation takes out: the signed square root, then
    length 1. Stripes are those of `part_heads.stripes`.
    """
    size = a.shape[-1]
    y = jnp.fft.irfft(stripes(spectrum(a, size, 0) * spectrum(b, size, 1), parts), size)
    y = y * jax.lax.rsqrt(jnp.abs(y) + _TINY)
    return y * jax.lax.rsqrt(jnp.square(y).sum(-1, keepdims=True) + _TINY)


def spectrum(x, size: int, seed: int):
    """The Fourier transform of `sketch`, [..., C] -> complex [..., D // 2 + 1]."""
    return jnp.fft.rfft(sketch(x, size, seed))


def sketch(x, size: int, seed: int):
    """The count sketch with the `hashes` of `seed`, [..., C] -> float32 (at least) [..., D]."""
    place, sign = hashes(x.shape[-1], size, seed)
    x = at_least_float32(x)
    # Channels first: XLA's CPU backend then adds whole rows.
    rows = jnp.moveaxis(sign.astype(x.dtype) * x, -1, 0)
    return jnp.moveaxis(jax.ops.segment_sum(rows, place, size), 0, -1)


def hashes(channels: int, size: int, seed: int):
    """Places in [0, size) and signs, int [C] each: constants, not parameters."""
    rng = np.random.default_rng(seed)
    return rng.integers(size, size=channels), rng.choice([-1, 1], channels)
