"""Where a training step spends its time, part by part of the network, beside the least it could.

$ taskset -c 0 python scripts/profile_step.py --config=configs/synthetic.py

compiles the step of a config for one device, takes --steps of them under `jax.profiler`, and adds
up the compiled program's operations by the part of the model that they come from (`jax.named_scope`
and Flax's module names). The floor is the time of the part's convolutions and matrix products at
the rate of a product of large matrices. On a CPU times are a core's where the process has one only.
"""

import collections
import itertools
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

import figures
import programs
from vireid_jax import command_line
from vireid_jax.training.devices import Devices, keep_memory
from vireid_jax.training.experiment import Experiment

CONFIG = config_flags.DEFINE_config_file("config", None, "Of the run whose step it is.")
PAGE = flags.DEFINE_string("page", None, "Also write the table into this page of docs/.")
STEPS = flags.DEFINE_integer("steps", 10, "How many to take the mean of.", lower_bound=1)
COLUMNS = ("part", "forward", "backward", "convolutions", "products", "rest", "GFLOP", "floor")
_SIDE = 2048  # of the large matrices


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
    if PAGE.value:
        figures.section(Path(PAGE.value), "profile_step")  # or refuse before anything slow
    # Programs that were kept before may name their operations otherwise.
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    keep_memory(CONFIG.value.train.keep_memory)
    experiment, devices = Experiment(CONFIG.value), Devices(1)
    batch = experiment.batches()[0]
    state = devices.replicate(experiment.init_state())
    compiled = devices.compile(experiment.update(CONFIG.value.seed), state, batch)

    def step():
        nonlocal state
        state, metrics = compiled(state, devices.place(batch))
        jax.block_until_ready((state, metrics))

    step()
    seconds = trace(step, STEPS.value)
    peak, parts = rate(), collections.defaultdict(collections.Counter)
    for name, operation in programs.operations(compiled.as_text()).items():
        spent = 1e3 * seconds[name] / STEPS.value
        for total in (parts[operation.part], parts["all"]):
            total["backward" if operation.backward else "forward"] += spent
            total[operation.kind] += spent
            if spent:
                total["GFLOP"] += operation.flop / 1e9
                total["floor"] += 1e3 * operation.flop / peak
    slowest_first = sorted(
        parts, key=lambda part: -parts[part]["forward"] - parts[part]["backward"]
    )
    rows = [
        (part, *(f"{parts[part][c]:.{2 if c == 'GFLOP' else 1}f}" for c in COLUMNS[1:]))
        for part in slowest_first
    ]
    table = figures.markdown(COLUMNS, rows)
    notes = f"{peak / 1e9:.0f} GFLOP/s in products of {_SIDE}x{_SIDE} matrices"
    print(f"{table}\nmilliseconds a step; {notes}")
    if PAGE.value:
        about = f"JAX {jax.__version__}, {devices.all[0].device_kind}, {notes}."
        figures.write(Path(PAGE.value), "profile_step", f"{table}\n\n{about}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command_line.run(main)
