"""Prints the tables of docs/scaling.md: what a step keeps, what devices exchange, what that costs.

    python scripts/scaling.py [--step_ms=28.6 --link=450 --network=50 --latency_us=10]

The first two are arithmetic on the paper-size network. The others take two steps of
configs/synthetic.py (rendered on first use) on 1, 2, 4 and 8 devices of the host, of the same
batches, and for comparison on one device from parameters that are changed in their last bit; once
more with smooth gates in place of ReLU and max pooling.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import programs
from frameworks import smooth
from vireid_jax import command_line, losses
from vireid_jax.models import network
from vireid_jax.training import optimizer, step
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.state import TrainState

STEP_MS = flags.DEFINE_float("step_ms", 28.6, "Of one device alone, with its share of the batch.")
LINK = flags.DEFINE_float("link", 450.0, "GB/s of a device to others of its host, one way.")
NETWORK = flags.DEFINE_float("network", 50.0, "GB/s of a device to other hosts, one way.")
DATA = flags.DEFINE_string("data_dir", "data", "Where prepared data lie: config.data.dir.")
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
            net = net.clone(conv_general_dilated=None)  # XLA's own

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


def print_device_counts(experiment, dtype):
    """The same steps on other numbers of devices: what they exchange, how far they are apart."""
    config = experiment.config
    print(f"{dtype}: exchanged a step, KiB; largest differences to one device")
    print(
        "devices  step  planned  compiled  collectives     loss  gradient  parameters  statistics"
    )
    ids = len(set(experiment.train_set.pid.tolist()))
    rule = optimizer.build(config.optimizer, lambda _: RATE)
    objective, augmentation = losses.build(config.loss.to_dict()), config.augment.to_dict()
    start = experiment.init_state()
    params, statistics = jax.tree.map(
        lambda x: np.array(x, dtype), (start.params, start.batch_stats)
    )
    rows = config.batch.identities * config.batch.images
    planned = plan(config, {"params": params, "batch_stats": statistics}, rows)
    planned = sum(sent for _, sent in planned.values()) / 1024
    batches, found = experiment.batches(), {}
    for name, count, own in (
        ("1", 1, params),
        ("nudged", 1, nudged(params)),
        *((str(count), count, params) for count in COUNTS[1:]),
    ):
        devices, compiled = Devices(count), None
        net = network.build(config.model, ids, dtype, heatmaps=1, axis_name=devices.axis)
        update = step.make_train_step(
            net, objective, rule, lambda _: RATE, augmentation, config.seed, devices.axis
        )
        # Steps donate their state.
        own, seen = jax.tree.map(np.copy, (own, statistics))
        state = devices.replicate(TrainState(jnp.int32(0), own, seen, rule.init(own)))
        for i in range(STEPS):
            compiled = compiled or devices.compile(update, state, batches[i])
            state, metrics = compiled(state, devices.place(batches[i]))
            # SGD's momentum holds the gradients.
            arrays = state.opt_state, state.params, state.batch_stats
            found.setdefault(name, []).append(jax.device_get((metrics, *arrays)))
            (terms, *one), (others, *other) = found["1"][i], found[name][i]
            loss = max(apart(value, others[term]) for term, value in terms.items())
            gradient, parameters, averages = map(apart, one, other)
            exchanged = programs.collectives(compiled.as_text(), count)
            print(
                f"{name:>7}  {i + 1:4}  {planned * (count > 1):7.0f}"
                f"  {sum(exchanged) / 1024:8.0f}  {len(exchanged):11}"
                f"  {loss:7.0e}  {gradient:8.0e}  {parameters:10.0e}  {averages:10.0e}",
                flush=True,
            )


def nudged(params):
    """Every number changed in its last bit, up or down."""
    rng = np.random.default_rng(0)

    def change(x):
        return np.nextafter(x, x * rng.choice(np.array([0, 2], x.dtype), x.shape))

    return jax.tree.map(change, params)


def apart(one, other):
    """The norm of the difference of two trees, relative to that of the first."""
    change = jax.tree.map(lambda x, y: np.subtract(x, y, dtype=np.float64), one, other)
    return float(optax.tree.norm(change) / optax.tree.norm(one))


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
    small.data.dir = DATA.value
    experiment = Experiment(small)
    print()
    print_device_counts(experiment, "float32")
    print("\nwith smooth gates, ", end="")
    with smooth.gates():
        print_device_counts(experiment, "float32")
    print()
    with jax.enable_x64(True):
        print_device_counts(experiment, "float64")


if __name__ == "__main__":
    command_line.run(main)
