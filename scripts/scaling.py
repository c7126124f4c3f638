"""Prints the tables of docs/scaling.md: what a step keeps, what devices exchange, what that costs.

    python scripts/scaling.py [--step_ms=17 --link=450 --network=50 --latency_us=10]

Both are arithmetic on the paper-size network and run anywhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vireid_jax import command_line
from vireid_jax.models import network

STEP_MS = flags.DEFINE_float("step_ms", 17.0, "Of one device alone, with its share of the batch.")
LINK = flags.DEFINE_float("link", 450.0, "GB/s of a device to others of its host, one way.")
NETWORK = flags.DEFINE_float("network", 50.0, "GB/s of a device to other hosts, one way.")
LATENCY = flags.DEFINE_float("latency_us", 10.0, "Of a collective, for each doubling of devices.")

PER_HOST = 8  # devices
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


def plan(config, variables, devices):
    """{collective: (count, bytes)} of a step, on paper."""
    norms = jax.tree.leaves(variables["batch_stats"])  # mean and variance of each BatchNorm
    heads = 2 * config.model.parts
    rows = config.batch.identities * config.batch.images * devices
    centers = 2 * heads * rows * config.model.features * 4
    return {
        "gradients": (1, size(variables["params"])),
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
        parts = plan(config, variables, count) if count > 1 else {}
        total = sum(sent for _, sent in parts.values())
        rate = LINK.value if count <= PER_HOST else NETWORK.value
        latency = sum(n for n, _ in parts.values()) * LATENCY.value / 1e3 * np.log2(count)
        transfer = 2 * (count - 1) / count * total / rate / 1e6
        batch = 2 * config.batch.identities * config.batch.images * count
        efficiency = 100 * STEP_MS.value / (STEP_MS.value + latency + transfer)
        print(
            f"{count:7}  {batch:5}  {total / 1e6:13.0f}  {latency:11.1f}  {transfer:12.1f}  "
            f"{efficiency:13.0f}"
        )


def main():
    """Prints both."""
    from configs import default

    paper = default.get_config()
    print_memory(paper, ids=395)
    print()
    print_efficiency(paper, ids=395)


if __name__ == "__main__":
    command_line.run(main)
