"""The step: independent of the device count, traced once; schedules; the optimiser."""

import dataclasses
import os
import platform
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from vireid_jax import losses
from vireid_jax.data import loader
from vireid_jax.evaluation import features
from vireid_jax.models import cpu_convolution, gpu_convolution, network
from vireid_jax.training import optimizer, step
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.state import TrainState
from vireid_jax.types import Batch, UserError


@pytest.fixture
def experiment(tiny):
    return Experiment(tiny())


def run_steps(experiment, devices, dtype, steps=2):
    """Losses, and the state, after some steps from the same start on these devices."""
    config = experiment.config
    net = network.build(config.model, 6, dtype, heatmaps=1, axis_name=devices.axis)
    state = experiment.init_state()
    params = jax.tree.map(lambda x: x.astype(dtype), state.params)
    stats = jax.tree.map(lambda x: x.astype(dtype), state.batch_stats)
    # Adam would blow rounding up to full steps where the exact gradient is zero.
    config.optimizer.rule = "sgd"
    rule = optax.chain(optax.trace(0.9), optimizer.build(config.optimizer, lambda _: 0.01))
    traced = []

    def counted(*args):
        traced.append(1)
        objective = losses.build(config.loss.to_dict())
        options = config.augment.to_dict(), config.seed, devices.axis
        return step.make_train_step(net, objective, rule, lambda _: 0.01, *options)(*args)

    update = devices.train_step(counted)
    state = devices.replicate(TrainState(jnp.int32(0), params, stats, rule.init(params)))
    batches = loader.Batches(experiment.train_set, experiment.sampler, steps)
    metrics = []
    for i in range(steps):
        state, values = update(state, devices.place(batches[i]))
        metrics.append({name: float(value) for name, value in values.items()})
    assert len(traced) == 1, "the step was traced more than once"
    return metrics, state


def worst(a, b):
    """Largest difference of two trees, relative to each tensor's norm (or 1e-3 of the largest)."""
    pairs = [
        (np.asarray(x, np.float64), np.asarray(y, np.float64))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    floor = 1e-3 * max(np.linalg.norm(x) for x, _ in pairs)
    return max(np.linalg.norm(x - y) / max(np.linalg.norm(x), floor) for x, y in pairs)


def test_loss_gradients_and_updates_do_not_depend_on_the_device_count(experiment):
    with jax.enable_x64(True):
        one, one_state = run_steps(experiment, Devices(1), "float64")
        four, four_state = run_steps(experiment, Devices(4), "float64")
        gradients = [state.opt_state[0].trace for state in (one_state, four_state)]  # of both steps
    for a, b in zip(one, four, strict=True):
        assert a.keys() == {
            "loss", "identity", "hetero_center", "pose", "distillation", "learning_rate"
        }  # fmt: skip
        assert a == pytest.approx(b, rel=1e-10)
    assert worst(*gradients) < 1e-10
    assert worst(one_state.params, four_state.params) < 1e-10
    assert worst(one_state.batch_stats, four_state.batch_stats) < 1e-10
    assert worst(experiment.init_state().params, one_state.params) > 1e-4
    for leaf in jax.tree.leaves(four_state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


def test_identities_that_the_devices_cannot_share_are_refused():
    Devices(4).check_identities(8)
    with pytest.raises(
        UserError, match=r"config\.batch\.identities=6 .*: use 4 or 8 .* or 1 or 2 or 3 dev"
    ):
        Devices(4).check_identities(6)


@pytest.mark.parametrize("count", [1, 4])
def test_each_batch_gets_its_own_results_in_order(count):
    batches = np.arange(36.0, dtype=np.float32).reshape(3, 12, 1)
    embed = Devices(count).embed(lambda variables, rows: {"twice": variables * rows})
    found = list(embed(2.0, iter(batches)))
    assert len(found) == 3
    for rows, results in zip(batches, found, strict=True):
        np.testing.assert_array_equal(results["twice"], 2 * rows)


def test_one_device_has_no_collectives(tiny, monkeypatch):
    def trace(count):
        monkeypatch.setattr("vireid_jax.training.experiment.Devices", lambda: Devices(count))
        experiment = Experiment(tiny())
        state, batch = experiment.abstract_state(), experiment.batches()[0]
        return jax.eval_shape(experiment.update(seed=0), state, batch)  # outside of any pmap

    trace(1)
    with pytest.raises(NameError, match="unbound axis name: devices"):
        trace(4)


FAULTS = """
import resource, sys
import numpy as np
from vireid_jax.training.devices import Devices, keep_memory

keep_memory(bool(int(sys.argv[1])))

def function(variables, rows):
    products = [rows]
    for _ in range(12):
        products.append(products[-1] @ variables)
    return {"all": sum(x * y for x, y in zip(products, products[::-1])).max((1, 2))}

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

embed = Devices(1).embed(function)
rows = np.ones((1, 150_000, 16), np.float32)
variables, taken = np.eye(16, dtype=np.float32), []
for _ in range(15):
    before = pages()
    (results,) = embed(variables, [rows])
    taken.append(pages() - before)
print(min(taken[5:]), results["all"].max())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_kept_memory_is_not_taken_from_the_system_again():
    """Fewest new pages of ten calls with 115 MB of intermediate results."""
    others = "GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX"  # other allocators, or settings
    environment = {name: x for name, x in os.environ.items() if name not in others}
    new_pages = []
    for keep in "01":
        command = [sys.executable, "-c", FAULTS, keep]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=environment | {"JAX_PLATFORMS": "cpu"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        pages, largest = done.stdout.split()
        assert float(largest) == 13
        new_pages.append(float(pages))
    assert 100 * new_pages[1] < new_pages[0]


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(experiment):
    net = network.build(experiment.config.model, 6, "bfloat16", heatmaps=1)
    state, (rgb, ir) = experiment.init_state(), jnp.ones((2, 2, 96, 48, 3))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    outputs, updates = jax.eval_shape(
        lambda v: net.apply(v, rgb, ir, train=True, mutable=["batch_stats"]), variables
    )
    assert {outputs.F_S.dtype, outputs.F_P.dtype, outputs.F_ID.dtype} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in (*outputs.logits, *outputs.features, outputs.heatmap)} == {
        jnp.dtype("float32")
    }
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_with_grey_neither_training_nor_features_see_which_channel_is_which(tiny):
    config, found = tiny("baseline"), []
    config.augment.remix = 0.0
    for grey in (True, False):
        config.augment.grey = grey
        experiment = Experiment(config)
        state, batch = experiment.init_state(), experiment.batches()[0]
        test_set = experiment.test_set
        swapped = dataclasses.replace(test_set, images=test_set.images[..., ::-1])
        one, other = (experiment.features(state, x)["f_ID"] for x in (test_set, swapped))
        update, devices = experiment.train_step(), experiment.devices
        losses = [
            float(update(devices.replicate(experiment.init_state()), devices.place(x))[1]["loss"])
            for x in (batch, batch.replace(rgb=batch.rgb[..., ::-1]))
        ]
        found.append((np.abs(one - other).max(), abs(losses[0] - losses[1])))
    assert max(found[0]) < 1e-4
    assert min(found[1]) > 1e-3


def test_filling_up_a_batch_never_changes_a_feature(experiment):
    state = experiment.init_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    embed = {
        modality: partial(map, jax.jit(lambda x, f=function: f(variables, *x)))
        for modality, function in ((m, step.make_embed(experiment._network, m)) for m in (0, 1))
    }
    few = features.extract(embed, experiment.test_set, 7)
    many = features.extract(embed, experiment.test_set, 32)
    assert few.keys() == {"f_ID", "f_ALL"}
    assert few["f_ALL"].shape == (32, 2 * 6 * 8)
    for name in few:
        np.testing.assert_allclose(few[name], many[name], rtol=1e-4, atol=1e-4)


# Convolution


@pytest.mark.parametrize(
    "convolve", [cpu_convolution.conv_general_dilated, gpu_convolution.in_other_words]
)
@pytest.mark.parametrize("size", [(6, 4), (7, 5), (8, 4)])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        (1, {}),
        (1, {"window_strides": (2, 2)}),
        (1, {"padding": ((1, 1), (1, 1))}),
        (1, {"lhs_dilation": (2, 2)}),
        (3, {}),
        (3, {"window_strides": (2, 2)}),
        (3, {"rhs_dilation": (2, 2), "padding": ((2, 2), (2, 2))}),
        (3, {"lhs_dilation": (2, 2), "padding": ((1, 2), (1, 2))}),
        (3, {"lhs_dilation": (2, 2)}),
        (5, {"window_strides": (2, 2), "padding": ((0, 3), (2, 1))}),
        (7, {"window_strides": (2, 2)}),
        (3, {"feature_group_count": 3}),
        (3, {"feature_group_count": 3, "window_strides": (2, 2)}),
        (3, {"feature_group_count": 3, "rhs_dilation": (2, 2), "padding": ((2, 2), (2, 2))}),
        (5, {"feature_group_count": 3, "window_strides": (2, 2), "padding": ((0, 3), (2, 1))}),
    ],
)
def test_convolution_equals_the_original_in_value_and_gradient(kernel, options, size, convolve):
    rng, pad = np.random.default_rng(0), kernel // 2
    options = {"window_strides": (1, 1), "padding": ((pad, pad), (pad, pad))} | options
    channels = (1, 3) if "feature_group_count" in options else (3, 5)
    x, w = rng.normal(size=(2, *size, 3)), rng.normal(size=(kernel, kernel, *channels))
    check_convolution(convolve, x, w, options)


@pytest.mark.parametrize("channels", [(3, 9), (9, 3), (16, 1)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_on_cpus_sums_over_whichever_side_is_smaller(kernel, channels):
    rng, pad = np.random.default_rng(0), kernel // 2
    x, w = rng.normal(size=(2, 6, 5, channels[0])), rng.normal(size=(kernel, kernel, *channels))
    options = {"window_strides": (1, 1), "padding": ((pad, pad), (pad, pad))}
    check_convolution(cpu_convolution.conv_general_dilated, x, w, options)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("channels", [(9, 10), (16, 1), (5, 3)])
def test_features_beyond_a_tile_are_computed_apart(channels, strides, monkeypatch):
    monkeypatch.setattr(gpu_convolution, "_TILE", 8)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 6, 5, channels[0])), rng.normal(size=(3, 3, *channels))
    options = {"window_strides": strides, "padding": ((1, 1), (1, 1))}
    check_convolution(gpu_convolution.in_other_words, x, w, options)
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    forward = str(jax.make_jaxpr(partial(gpu_convolution.in_other_words, **options))(x, w))
    features = re.findall(r",(\d+)\] = conv_general_dilated", forward)
    assert features == (["8"] if channels[1] > 8 else [])


@pytest.mark.parametrize(("kernel", "features"), [(3, 130), (3, 2), (1, 9)])
def test_half_precision_is_as_exact_as_in_the_original(kernel, features):
    rng, pad = np.random.default_rng(0), kernel // 2
    x, w, dy = (
        rng.normal(size=shape)
        for shape in ((2, 6, 5, 16), (kernel, kernel, 16, features), (2, 6, 5, features))
    )
    options = {"window_strides": (1, 1), "padding": ((pad, pad), (pad, pad))}
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")

    def value_and_gradients(convolve, dtype):
        arrays = [jnp.asarray(a, jnp.bfloat16).astype(dtype) for a in (x, w, dy)]
        y, backward = jax.vjp(partial(convolve, **options), *arrays[:2])
        return [np.asarray(a, float) for a in (y, *backward(arrays[2]))]

    ours = value_and_gradients(gpu_convolution.in_other_words, jnp.bfloat16)
    theirs = value_and_gradients(jax.lax.conv_general_dilated, jnp.bfloat16)
    with jax.enable_x64(True):
        exact = value_and_gradients(jax.lax.conv_general_dilated, jnp.float64)
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert np.linalg.norm(a - c) <= 1.1 * np.linalg.norm(b - c)


def check_convolution(convolve, x, w, options):
    """Value and gradients equal those of XLA's convolution."""
    options = options | {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    with jax.enable_x64(True):

        def value_and_gradient(convolve):
            def loss(x, w):
                y = convolve(x, w, **options)
                return jnp.sin(y).sum(), y

            return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, w)

        ours = value_and_gradient(convolve)
        theirs = value_and_gradient(jax.lax.conv_general_dilated)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, theirs)


@pytest.mark.parametrize(("dtype", "used"), [("bfloat16", True), ("float32", False)])
def test_gpu_convolution_is_for_half_precision(dtype, used, monkeypatch):
    calls = []
    monkeypatch.setattr(gpu_convolution, "in_other_words", lambda x, *a, **options: calls.append(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    config = default.get_config()
    net = network.build(config.model, 2, dtype, heatmaps=1)
    x, kernel = jnp.zeros((1, 4, 4, 3), dtype), jnp.zeros((3, 3, 3, 2), dtype)
    padded = {"padding": ((1, 1), (1, 1)), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    net.conv_general_dilated(x, kernel, (1, 1), **padded)
    assert bool(calls) == used


# Schedules and optimiser


def test_the_papers_schedule_halves_every_twenty_epochs():
    rate = optimizer.schedule(default.get_config().optimizer, 10_000, steps_per_epoch=10)
    assert [float(rate(s)) for s in (0, 199, 200, 399, 400)] == pytest.approx(
        [0.01, 0.01, 0.005, 0.005, 0.0025]
    )


def test_milestones_are_factors_of_the_first_rate():
    c = default.get_config("full,published_code").optimizer
    rate = optimizer.schedule(c, 2_000, steps_per_epoch=10)
    assert [float(rate(s)) for s in (0, 119, 120, 300, 1799, 1800)] == pytest.approx(
        [0.01, 0.01, 0.0075, 0.005, 0.001, 0.0005]
    )
    c.milestones = (1, 2)
    with pytest.raises(UserError, match=r"2 epochs, but \.factors has 6 values"):
        optimizer.schedule(c, 2_000, steps_per_epoch=10)


def test_cosine_with_warmup_rises_and_ends_near_zero():
    c = default.get_config().optimizer
    c.schedule, c.warmup_epochs = "cosine", 1.0
    rate = optimizer.schedule(c, 100, steps_per_epoch=10)
    values = [float(rate(s)) for s in range(100)]
    assert values[0] == pytest.approx(0.001, rel=1e-3)
    assert np.argmax(values) == 9
    assert np.diff(values[10:]).max() < 0
    assert values[-1] < 1e-5
    c.schedule = "cosin"
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        optimizer.schedule(c, 100, 10)


def sgd_change(step, memory, grad, param):
    """PyTorch's SGD with Nesterov momentum and its weight decay; the rate is left out."""
    decayed = grad + 5e-4 * param
    memory["sum"] = 0.9 * memory.get("sum", 0) + decayed
    return decayed + 0.9 * memory["sum"]


def adamw_change(step, memory, grad, param):
    """PyTorch's AdamW, likewise."""
    memory["mean"] = 0.9 * memory.get("mean", 0) + 0.1 * grad
    memory["square"] = 0.999 * memory.get("square", 0) + 0.001 * grad**2
    deviation = np.sqrt(memory["square"] / (1 - 0.999**step))
    return memory["mean"] / (1 - 0.9**step) / (deviation + 1e-8) + 5e-4 * param


@pytest.mark.parametrize(("name", "change"), [("sgd", sgd_change), ("adamw", adamw_change)])
def test_rules_are_pytorchs_with_decay_on_all_and_slower_stems(name, change):
    c = default.get_config().optimizer
    c.rule = name
    rule = optimizer.build(c, lambda _: 0.1)
    rng = np.random.default_rng(0)
    sizes = {"rgb": 3, "ir": 3, "layer2": 10_000}  # the last has memory of its own
    params = {
        "streams": {module: {"w": rng.normal(size=size)} for module, size in sizes.items()},
        "reid": {"bias": rng.normal(size=3)},
    }
    rates = {
        "streams": {"rgb": {"w": 0.01}, "ir": {"w": 0.01}, "layer2": {"w": 0.1}},
        "reid": {"bias": 0.1},
    }
    expected, memory = params, jax.tree.map(lambda _: {}, params)
    state = rule.init(params)
    for step_number in range(1, 4):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
        expected = jax.tree.map(
            lambda rate, p, g, m, t=step_number: p - rate * change(t, m, g, p),
            rates,
            expected,
            grads,
            memory,
        )
        updates, state = rule.update(grads, state, params)
        params = jax.tree.map(lambda p, u: p + np.asarray(u, np.float64), params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, expected)


# Paper size


@pytest.mark.slow
def test_one_step_at_paper_size_with_all_losses():
    config = default.get_config()
    net = network.build(config.model, 395, "float32", heatmaps=1)
    variables = network.init(net, jax.random.key(0), 288, 144)
    rule = optimizer.build(config.optimizer, lambda _: 0.01)
    params = variables["params"]
    state = TrainState(jnp.int32(0), params, variables["batch_stats"], rule.init(params))
    rng = np.random.default_rng(0)
    rgb, ir = rng.integers(0, 256, (2, 4, 288, 144, 3), np.uint8)
    rgb_map, ir_map = rng.integers(0, 256, (2, 4, 72, 36, 1), np.uint8)
    batch = Batch(rgb, ir, np.array([7, 7, 300, 300], np.int32), rgb_map, ir_map)
    objective = losses.build(config.loss.to_dict())
    update = step.make_train_step(
        net, objective, rule, lambda _: 0.01, config.augment.to_dict(), seed=0
    )
    after, metrics = jax.jit(update)(state, batch)
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    assert float(metrics["identity"]) == pytest.approx(12 * np.log(395), rel=0.05)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(after.params), strict=True)
    ]
    assert all(changed)
