"""3x3 convolution on CPUs in fewer products, beside the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vireid_jax.models import cpu_convolution, winograd

_CHANNELS = 32, 24


def _options(dilation):
    pad = (dilation, dilation)
    labels = ("NHWC", "HWIO", "NHWC")
    return {"rhs_dilation": pad, "dimension_numbers": labels}, ((1, 1), (pad, pad))


def _value_and_gradient(convolve, x, kernel, dilation):
    named, placed = _options(dilation)

    def loss(x, kernel):
        y = convolve(x, kernel, *placed, **named)
        return jnp.sin(y).sum(), y

    found = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
    return jax.tree.map(np.asarray, found)


def _inputs(size, batch, dtype):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(batch, *size, 32)), rng.normal(size=(3, 3, *_CHANNELS)) / 9
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize(
    ("size", "dilation", "at_a_time"),
    [((9, 6), 1, 1), ((7, 5), 1, 1e9), ((1, 2), 1, 1e9), ((12, 8), 2, 1e4), ((9, 6), 3, 1)],
)
def test_it_is_the_convolution_of_the_definition(size, dilation, at_a_time, monkeypatch):
    monkeypatch.setattr(winograd, "_AT_A_TIME", at_a_time)
    with jax.enable_x64(True):
        x, kernel = _inputs(size, 6, "float64")
        ours, theirs = (
            _value_and_gradient(convolve, x, kernel, dilation)
            for convolve in (cpu_convolution.conv_general_dilated, lax.conv_general_dilated)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-12), ours, theirs)


def test_in_float32_it_rounds_little_more_coarsely():
    x, kernel = _inputs((24, 12), 4, "float32")
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(a), "float64") for a in (x, kernel)]
        exact = _value_and_gradient(lax.conv_general_dilated, *wide, 1)
    ours = _value_and_gradient(cpu_convolution.conv_general_dilated, x, kernel, 1)
    apart = jax.tree.map(lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), ours, exact)
    assert max(jax.tree.leaves(apart)) < 1e-5


def test_kernels_of_several_runs_are_mapped():
    x, kernel = _inputs((6, 6), 2, "float32")
    kernels = jnp.stack([kernel, 2 * kernel])
    one, two = jax.jit(jax.vmap(winograd.conv3x3, (None, 0)))(x, kernels)
    alone = jax.jit(winograd.conv3x3)(x, kernel)
    np.testing.assert_allclose(one, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "dilation", "dtype", "used"),
    [
        ((6, 6), 1, "float32", True),
        ((6, 6), 2, "float32", True),
        ((6, 5), 2, "float32", False),  # not as many rows or columns in each phase
        ((6, 6), 1, "bfloat16", False),  # sums of differences would lose too much
    ],
)
def test_it_is_used_where_it_can_be(size, dilation, dtype, used):
    named, placed = _options(dilation)
    program = jax.make_jaxpr(lambda *a: cpu_convolution.conv_general_dilated(*a, *placed, **named))(
        *_inputs(size, 2, dtype)
    )
    assert ("conv_general_dilated" in str(program)) != used
