"""Prints the tables of docs/scaling.md: what a step keeps, what devices exchange, what that costs.

    python scripts/scaling.py [--step_ms=17 --link=450 --network=50 --latency_us=10]

The first two are arithmetic on the paper-size network. The others take two steps of
configs/synthetic.py on 1, 2, 4 and 8 devices of the host, of the same batch.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vireid_jax import command_line, losses
from vireid_jax.models import network
from vireid_jax.training import optimizer, step
from vireid_jax.training.devices import AXIS, Devices
from vireid_jax.training.state import TrainState
from vireid_jax.types import Batch

STEP_MS = flags.DEFINE_float("step_ms", 17.0, "Of one device alone, with its share of the batch.")
LINK = flags.DEFINE_float("link", 450.0, "GB/s of a device to others of its host, one way.")
NETWORK = flags.DEFINE_float("network", 50.0, "GB/s of a device to other hosts, one way.")
LATENCY = flags.DEFINE_float("latency_us", 10.0, "Of a collective, for each doubling of devices.")

PER_HOST = 8  # devices
COUNTS = (1, 2, 4, 8)
STEPS = 2
RATE = 0.01
GIB = 2**30


def shapes(config, ids, **options):
    """The network of a config and the shapes of its variables."""
    net = network.build(config.model, ids, heatmaps=1, **options)
    size = config.data.height, config.data.width
    return net, jax.eval_shape(lambda: network.init(net, jax.random.key(0), *size))


def size(tree):
    """Bytes of arrays or shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def print_memory(config, ids):
    """What the network keeps for its backward pass, as `jax.vjp` does before compilation."""
    print("images  dtype     remat  kept for the backward pass, GiB")
    rows = config.batch.identities * config.batch.images
    images = jnp.zeros((rows, config.data.height, config.data.width, 3))
    for dtype in ("float32", "bfloat16"):
        for remat in (False, True):
            net, variables = shapes(config, ids, dtype=dtype, remat=remat)
            net = net.clone(conv_general_dilated=None)  # as on a GPU

            def backward(variables, net=net):
                run = functools.partial(net.apply, train=True, mutable=["batch_stats"])

                def outputs(params):
                    found, _ = run(variables | {"params": params}, images, images)
                    return *found.logits, *found.features, found.heatmap, found.teacher_logits

                return jax.vjp(outputs, variables["params"])[1]

            kept = size(jax.eval_shape(backward, variables)) - size(variables["params"])
            print(f"{2 * rows:6}  {dtype:8}  {remat!s:5}  {kept / GIB:.1f}")


def plan(config, variables, rows):
    """{collective: (count, bytes)} of a step of so many rows of each modality, on paper."""
    norms = jax.tree.leaves(variables["batch_stats"])  # mean and variance of each BatchNorm
    gradients = jax.tree.leaves(variables["params"])
    heads = 2 * config.model.parts
    centers = 2 * heads * rows * config.model.features * gradients[0].dtype.itemsize
    return {
        "gradients": (1, size(gradients)),
        "BatchNorm, forward": (len(norms) // 2, size(norms)),
        "BatchNorm, backward": (len(norms) // 2, size(norms)),
        "centres, forward": (2, centers),
        "centres, backward": (2, centers),
    }


def print_efficiency(config, ids):
    """Expected time and efficiency, with rings within a host and between hosts."""
    _, variables = shapes(config, ids, dtype="float32")
    print("devices  batch  exchanged, MB  latency, ms  transfer, ms  efficiency, %")
    for count in (1, 8, 64, 512):
        rows = config.batch.identities * config.batch.images * count
        parts = plan(config, variables, rows) if count > 1 else {}
        total = sum(sent for _, sent in parts.values())
        rate = LINK.value if count <= PER_HOST else NETWORK.value
        latency = sum(n for n, _ in parts.values()) * LATENCY.value / 1e3 * np.log2(count)
        transfer = 2 * (count - 1) / count * total / rate / 1e6
        efficiency = 100 * STEP_MS.value / (STEP_MS.value + latency + transfer)
        print(
            f"{count:7}  {2 * rows:5}  {total / 1e6:13.0f}  {latency:11.1f}  {transfer:12.1f}  "
            f"{efficiency:13.0f}"
        )


def print_device_counts(config, dtype):
    """The same steps on other numbers of devices: what they exchange, how far they are apart."""
    print(f"{dtype}: exchanged a step, KiB; largest difference to one device")
    print("devices  planned  compiled  collectives     loss  gradient  parameters  statistics")
    net = network.build(config.model, 128, dtype, heatmaps=1, axis_name=AXIS)
    rule = optimizer.build(config.optimizer, lambda _: RATE)
    objective, augmentation = losses.build(config.loss.to_dict()), config.augment.to_dict()
    update = step.make_train_step(
        net, objective, rule, lambda _: RATE, augmentation, config.seed, AXIS
    )
    size_of_images = config.data.height, config.data.width
    variables = network.init(net, jax.random.key(config.seed), *size_of_images)
    variables = jax.tree.map(lambda x: np.array(x, dtype), variables)  # steps donate their state
    rows = config.batch.identities * config.batch.images
    planned = sum(sent for _, sent in plan(config, variables, rows).values())
    one = None
    for count in COUNTS:
        devices, compiled, terms = Devices(count), None, []
        params, statistics = jax.tree.map(np.copy, (variables["params"], variables["batch_stats"]))
        state = TrainState(jnp.int32(0), params, statistics, rule.init(params))
        state = devices.replicate(state)
        for batch in random_batches(config):
            compiled = compiled or devices.compile_on_cpu(update, state, batch)
            state, metrics = compiled(state, devices.split(batch))
            terms.append([float(x) for x in jax.tree.leaves(metrics)])
        exchanged = collectives(compiled.as_text(), count)
        # SGD's momentum holds the gradients of all steps.
        arrays = state.opt_state, state.params, state.batch_stats
        found = list(np.array(terms).T), *jax.device_get(arrays)
        one = one or found
        loss, gradient, parameters, statistics = map(apart, one, found)
        print(
            f"{count:7}  {planned * (count > 1) / 1024:7.0f}"
            f"  {sum(exchanged) / 1024:8.0f}  {len(exchanged):11}"
            f"  {loss:7.0e}  {gradient:8.0e}  {parameters:10.0e}  {statistics:10.0e}",
            flush=True,
        )


def random_batches(config):
    """Noise of the config's sizes, with its labels."""
    rng, height, width = np.random.default_rng(0), config.data.height, config.data.width
    rows = config.batch.identities * config.batch.images
    label = np.arange(config.batch.identities, dtype=np.int32).repeat(config.batch.images)
    for _ in range(STEPS):
        images = rng.integers(0, 256, (2, rows, height, width, 3), np.uint8)
        maps = rng.integers(0, 256, (2, rows, height // 4, width // 4, 1), np.uint8)
        yield Batch(*images, label, *maps)


def collectives(program, devices):
    """Bytes of each collective in a compiled program: of the whole array, not of a share of it."""
    found = []
    pattern = r"= (.*?) (all-reduce|all-gather|reduce-scatter)(?:-start)?\("
    for result, kind in re.findall(pattern, program):
        share = devices if kind == "reduce-scatter" else 1
        arrays = re.findall(r"\b[fsu](\d+)\[([\d,]*)\]", result)
        sizes = [
            int(n) // 8 * np.prod([int(x) for x in shape.split(",") if x]) for n, shape in arrays
        ]
        found.append(int(share * sum(sizes)))
    return found


def apart(one, other):
    """Largest difference of two trees, relative to each array's norm (or 1e-3 of the largest)."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    floor = 1e-3 * max(np.linalg.norm(x) for x, _ in pairs)
    return max(np.linalg.norm(x - y) / max(np.linalg.norm(x), floor) for x, y in pairs)


def main():
    """Prints all."""
    from configs import default, synthetic

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(COUNTS))
    paper, small = default.get_config(), synthetic.get_config()
    print_memory(paper, ids=395)
    print()
    print_efficiency(paper, ids=395)
    small.optimizer.rule = "sgd"  # Adam would blow rounding up where a gradient is nearly zero
    for dtype in ("float32", "float64"):
        print()
        with jax.enable_x64(dtype == "float64"):
            print_device_counts(small, dtype)


if __name__ == "__main__":
    command_line.run(main)
