"""3x3 convolution on CPUs in fewer products, beside the definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vireid_jax.models import cpu_convolution, forms, winograd


def _options(kind, dilation=1):
    around = [(dilation, dilation)] * 2
    strides, padding, options = {
        "same": ((1, 1), around, {"rhs_dilation": (dilation, dilation)}),
        "half": ((2, 2), around, {}),
        "twice": ((1, 1), [(1, 2)] * 2, {"lhs_dilation": (2, 2)}),
    }[kind]
    labels = ("NHWC", "HWIO", "NHWC")
    return {"window_strides": strides, "padding": padding, "dimension_numbers": labels} | options


def _by_winograd(x, kernel, window_strides, padding, **options):
    form = forms.Form.of(kernel, window_strides, padding, options)
    rules = winograd.rules_for(form, x)
    return winograd.conv3x3(x, kernel, rules, form.dilation[0])


def _value_and_gradient(convolve, x, kernel, options):
    def loss(x, kernel):
        y = convolve(x, kernel, **options)
        return jnp.sin(y).sum(), y

    found = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, kernel)
    return jax.tree.map(np.asarray, found)


def _inputs(size, batch, dtype, channels=32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *size, channels))
    kernel = rng.normal(size=(3, 3, channels, 24)) / 9
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


@pytest.mark.parametrize(
    ("size", "kind", "dilation", "at_a_time"),
    [
        ((9, 6), "same", 1, 1),
        ((8, 12), "same", 1, 1e5),
        ((7, 5), "same", 1, 1e9),
        ((2, 3), "same", 1, 1e9),
        ((1, 4), "same", 1, 1e9),
        ((12, 8), "same", 2, 1e4),
        ((9, 6), "same", 3, 1),
        ((12, 6), "half", 1, 1e5),
        ((11, 5), "half", 1, 1),
        ((10, 9), "half", 1, 1e9),
        ((6, 3), "twice", 1, 1e5),
        ((5, 8), "twice", 1, 1e9),
        ((3, 2), "twice", 1, 1),
    ],
)
def test_it_is_the_convolution_of_the_definition(size, kind, dilation, at_a_time, monkeypatch):
    monkeypatch.setattr(winograd, "_AT_A_TIME", at_a_time)
    with jax.enable_x64(True):
        x, kernel = _inputs(size, 6, "float64")
        options = _options(kind, dilation)
        ours, theirs = (
            _value_and_gradient(convolve, x, kernel, options)
            for convolve in (_by_winograd, lax.conv_general_dilated)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-10, 1e-12), ours, theirs)


@pytest.mark.parametrize("channels", [32, 256])
@pytest.mark.parametrize(
    ("size", "kind"), [((12, 6), "same"), ((16, 8), "same"), ((12, 12), "half"), ((6, 6), "twice")]
)
def test_in_float32_it_rounds_a_few_times_more_coarsely(size, kind, channels):
    x, kernel = _inputs(size, 4, "float32", channels)
    options = _options(kind)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(a), "float64") for a in (x, kernel)]
        exact = _value_and_gradient(lax.conv_general_dilated, *wide, options)

    def apart(convolve):
        found = _value_and_gradient(convolve, x, kernel, options)
        norms = jax.tree.map(lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), found, exact)
        return np.array(jax.tree.leaves(norms)[1:])  # without the sum

    ours, theirs = apart(_by_winograd), apart(lax.conv_general_dilated)
    assert (ours < 10 * theirs).all()


@pytest.mark.parametrize("kind", ["same", "half", "twice"])
def test_runs_side_by_side_are_each_alone(kind):
    runs = [_inputs((6, 6), 2, "float32", seed=seed) for seed in (0, 1)]
    x, kernel = map(jnp.stack, zip(*runs, strict=True))
    convolve = partial(_by_winograd, **_options(kind))
    gradient = jax.grad(lambda *a: jnp.sin(convolve(*a)).sum(), (0, 1))
    together, alone = jax.jit(jax.vmap(gradient))(x, kernel), jax.jit(gradient)
    for i, run in enumerate(runs):
        for found, own in zip(together, alone(*run), strict=True):
            np.testing.assert_allclose(found[i], own, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "kind", "dilation", "dtype", "used"),
    [
        ((6, 6), "same", 1, "float32", True),
        ((6, 6), "same", 2, "float32", True),
        ((8, 12), "half", 1, "float32", True),
        ((6, 6), "twice", 1, "float32", True),
        ((4, 3), "same", 1, "float32", False),  # too little to pay
        ((4, 6), "half", 1, "float32", False),
        ((3, 3), "twice", 1, "float32", False),
        ((14, 14), "half", 1, "float32", False),  # as many products as the definition
        ((6, 5), "same", 2, "float32", False),  # not as many rows or columns in each phase
        ((6, 6), "same", 1, "bfloat16", False),  # sums of differences would lose too much
    ],
)
def test_it_is_used_where_it_pays(size, kind, dilation, dtype, used, monkeypatch):
    assert _uses_it(_inputs(size, 2, dtype), _options(kind, dilation), monkeypatch) == used


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("half", {"padding": [(0, 1), (0, 1)]}),
        ("half", {"padding": [(0, 0), (0, 0)]}),
        ("half", {"window_strides": (2, 1)}),
        ("half", {"rhs_dilation": (2, 2)}),
        ("twice", {"padding": [(1, 1), (1, 1)]}),
        ("same", {"padding": [(0, 0), (0, 0)]}),
        ("same", {"feature_group_count": 2}),
    ],
)
def test_other_convolutions_are_left_to_others(kind, other, monkeypatch):
    x, kernel = _inputs((18, 18), 2, "float32")
    assert _uses_it((x, kernel), _options(kind), monkeypatch)
    kernel = kernel[:, :, : x.shape[-1] // other.get("feature_group_count", 1)]
    assert not _uses_it((x, kernel), _options(kind) | other, monkeypatch)


def _uses_it(inputs, options, monkeypatch):
    calls = []
    monkeypatch.setattr(cpu_convolution, "_ENOUGH", 20_000)
    monkeypatch.setattr(winograd, "conv3x3", lambda x, *a: calls.append(a) or x)
    jax.eval_shape(partial(cpu_convolution.conv_general_dilated, **options), *inputs)
    return bool(calls)


@pytest.mark.parametrize("kind", ["same", "half", "twice"])
def test_its_products_are_enough_operations_for_several_cores(kind):
    convolve = partial(_by_winograd, **_options(kind))
    jaxpr = str(jax.make_jaxpr(convolve)(*_inputs((12, 8), 2, "float32")))
    of_batches = jaxpr.count("dimension_numbers=(([2], [1]), ([0], [0]))")
    assert of_batches > 8  # what XLA leaves to one core
