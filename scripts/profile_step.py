"""Where a training step spends its time, part by part of the network, beside the least it could.

$ taskset -c 0 python scripts/profile_step.py --config=configs/synthetic.py

compiles the step of a config for one device, takes --steps of them under `jax.profiler`, and adds
up the compiled program's operations by the part of the model that they come from (`jax.named_scope`
and Flax's module names). The floor is the time of the part's convolutions and matrix products at
the rate of a product of large matrices. On a CPU times are a core's where the process has one only.
"""

import collections
import dataclasses
import itertools
import math
import re
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

import figures
from vireid_jax import command_line
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import Experiment

CONFIG = config_flags.DEFINE_config_file("config", None, "Of the run whose step it is.")
STEPS = flags.DEFINE_integer("steps", 10, "How many to take the mean of.", lower_bound=1)
COLUMNS = ("part", "forward", "backward", "convolutions", "products", "rest", "GFLOP", "floor")
_PRODUCTS = {"convolution": "convolutions", "dot": "products"}
_CONTAINERS = {"while", "conditional", "call"}  # whose operations are traced one by one
_SIDE = 2048  # of the large matrices


@dataclasses.dataclass(frozen=True)
class Operation:
    """One of a compiled program.

    Attributes:
      part: of the model.
      backward: whether it computes gradients.
      kind: a column.
      flop: two for a multiplication and an addition; 0 for the rest.
    """

    part: str
    backward: bool
    kind: str
    flop: float


def operations(program: str) -> dict[str, Operation]:
    """By name, of the text of a compiled program."""
    lines = re.findall(r"^ *(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$", program, re.M)
    shapes = {name: shape for name, shape, *_ in lines}
    inner = dict(re.findall(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.M | re.S))
    found, sources = {}, {}
    for name, shape, opcode, rest in lines:
        read = re.findall(r"%([\w.\-]+)", rest)
        # The compiler drops the name of what it rewrites: what it holds or else reads tells.
        named = re.findall(r'op_name="([^"]*)"', rest + "".join(inner.get(x, "") for x in read))
        named += sorted((sources.get(x, "") for x in read), key=_forward)
        source = sources[name] = next(filter(_part, named), "")
        flop = 0.0
        if opcode in _PRODUCTS:
            one, other = (_sizes(shapes[x]) for x in read[:2])
            flop = 2.0 * math.prod(_sizes(shape)) * _summed(opcode, one, other, rest)
        if opcode not in _CONTAINERS:
            kind = _PRODUCTS.get(opcode, "rest")
            found[name] = Operation(_part(source) or "rest", not _forward(source), kind, flop)
    return found


def _part(source):
    """The part of the model, of an operation's name: Flax's module, or a scope of the step."""
    found = re.search(r"\(Network\)+/(\w+)/|\b(augment|losses|optimizer)\b", source)
    return found and (found[1] or found[2])


def _forward(source):
    return "transpose(" not in source


def _sizes(shape):
    return [int(x) for x in re.search(r"\[([\d,]*)\]", shape)[1].split(",") if x]


def _summed(opcode, one, other, rest):
    """How many products each number of the result is the sum of."""
    if opcode == "dot":
        return math.prod(one[int(i)] for i in _list(r"lhs_contracting_dims=\{([\d,]*)\}", rest))
    labels = re.search(r"dim_labels=\w+_(\w+)->", rest)[1]
    return math.prod(other) / other[labels.index("o")]


def _list(pattern, text):
    return [x for x in re.search(pattern, text)[1].split(",") if x]


def trace(step, count: int) -> collections.Counter:
    """Seconds by name of operation, of `count` calls of `step`."""
    seconds = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(count):
                step()
        file = next(Path(folder).rglob("*.xplane.pb"))
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for event in itertools.chain.from_iterable(line.events for line in plane.lines):
                seconds[dict(event.stats).get("hlo_op", event.name)] += event.duration_ns / 1e9
    return seconds


def rate() -> float:
    """Operations a second of a product of large matrices, the best of five."""
    product, x = jax.jit(jnp.dot), jnp.ones((_SIDE, _SIDE))
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        taken.append(time.perf_counter() - start)
    return 2 * _SIDE**3 / min(taken[1:])


def main():
    """Prints the table."""
    # Programs that were kept before may name their operations otherwise.
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    experiment, devices = Experiment(CONFIG.value), Devices(1)
    batch = experiment.batches()[0]
    state = devices.replicate(experiment.init_state())
    compiled = devices.compile(experiment.update(CONFIG.value.seed), state, batch)

    def step():
        nonlocal state
        state, metrics = compiled(state, devices.split(batch))
        jax.block_until_ready((state, metrics))

    step()
    seconds = trace(step, STEPS.value)
    peak, parts = rate(), collections.defaultdict(collections.Counter)
    for name, operation in operations(compiled.as_text()).items():
        spent = 1e3 * seconds[name] / STEPS.value
        for total in (parts[operation.part], parts["all"]):
            total["backward" if operation.backward else "forward"] += spent
            total[operation.kind] += spent
            if spent:
                total["GFLOP"] += operation.flop / 1e9
                total["floor"] += 1e3 * operation.flop / peak
    parts["all"] = parts.pop("all")  # last
    rows = [
        (
            part,
            *(f"{own[c]:.1f}" for c in COLUMNS[1:-2]),
            f"{own['GFLOP']:.2f}",
            f"{own['floor']:.1f}",
        )
        for part, own in parts.items()
    ]
    print(figures.markdown(COLUMNS, rows))
    print(f"milliseconds a step; {peak / 1e9:.0f} GFLOP/s in products of {_SIDE}x{_SIDE} matrices")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command_line.run(main)
