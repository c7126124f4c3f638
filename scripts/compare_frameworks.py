"""Times vireid_jax and the same network in plain PyTorch, once both compute the same.

$ python scripts/compare_frameworks.py [--preset=paper] [--modes=train,embed] [--output=FILE.json]

PyTorch is no requirement of this package: install scripts/torch_twin/requirements.txt beside it, or
name another environment's interpreter by --torch_python. Each side is a process of its own with the
same weights, inputs and number of threads. First both compute in float64 and float32, without
augmentation, gradients also with smooth gates in place of ReLU, and a difference that is more than
rounding is an error (frameworks/differences.py). Then they work in turn, ours first, in several
processes one after the other, since one may be slow for as long as it lives. The figure is the
median of the ratios of neighbours: above 1, ours is faster.

Without flags it is all of docs/benchmarks.md: the paper's sizes and those of configs/synthetic.py.

train: steps from uint8 to new parameters, with augmentation on the device, where our loader has put
the batch before; PyTorch's step copies it there.
embed: uint8 on the host to f_ID and f_ALL on the host.
extract: the same to the heatmaps of the pose teacher.
evaluate: ten trials of SYSU-MM01's protocol, given all similarities, against one query at a time.
data: batches of images in memory, against one image at a time through PIL, which also augments it
(ours does that in the step, on the device).
start: from the command of configs/synthetic.py to its first step, ours alone.

--output also writes FILE.svg, a bar chart.
"""

import dataclasses
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from frameworks import chart, differences, first_step, sides, tasks
from vireid_jax import command_line, registry
from vireid_jax.interop import torch_weights

ALL_MODES = [*tasks.TASKS, "start"]
MODES = flags.DEFINE_list("modes", ALL_MODES, "What to compare.")
PRESET = flags.DEFINE_list("preset", ["paper", "embedded"], "Sizes: tiny, embedded, paper.")
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "cuda"], "Where.")
DTYPE = flags.DEFINE_enum(
    "dtype", None, ["float32", "bfloat16"], "Of activations; bfloat16 on cuda unless given."
)
COMPILE = flags.DEFINE_bool(
    "compile", None, "Also time PyTorch compiled, which takes minutes on a CPU; on cuda by default."
)
EAGER = flags.DEFINE_bool("eager", True, "Also time PyTorch uncompiled where it is timed compiled.")
IDENTITIES = flags.DEFINE_integer("identities", None, "D of a training batch, if not the preset's.")
BATCH = flags.DEFINE_integer("batch", None, "Images at a time in embed and extract, likewise.")
STARTS = flags.DEFINE_integer(
    "starts", 3, "Processes of each side, and calls of start.", lower_bound=1
)
ROUNDS = flags.DEFINE_integer("rounds", 2, "Of each of them.", lower_bound=1)
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "Interpreter with PyTorch.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file for all figures.")

WITH_NETWORK = ("train", "embed", "extract")
KINDS = {
    "float64": {"dtype": "float64", "smooth": False},
    "float32": {"dtype": "float32", "smooth": False},
    "smooth float32": {"dtype": "float32", "smooth": True},
}
CHECKED = {  # kinds of a mode
    "train": list(KINDS),
    "embed": ["float64", "float32"],
    "extract": ["float64", "float32"],
    "evaluate": ["float32"],
    "data": ["float32"],
}
BYTES = {"float32": 4, "bfloat16": 2}
SETTINGS = "GLIBC_TUNABLES", "XLA_FLAGS"  # environment variables that change speed


def prepare(folder, function, sizes):
    """Writes weights and inputs of a task; returns what the sides are told beside them."""
    task, weights, inputs = function(sizes, np.random.default_rng(0))
    if weights:
        torch_weights.write(folder / "weights.npz", weights)
    (folder / "inputs").mkdir()
    for name, array in inputs.items():
        np.save(folder / "inputs" / f"{name}.npy", array)
    return task | {
        "mode": function.__name__,
        "device": DEVICE.value,
        "threads": len(os.sched_getaffinity(0)),
        "keep_memory": sizes.config.train.keep_memory,
    }


def time_in_turn(names, folder, task):
    """The sides after all rounds, A B A B, of each of their processes."""
    found = [sides.Side(name, folder, task, TORCH_PYTHON.value) for name in names]
    for _ in range(STARTS.value):
        for side in found:
            side.start()
        for _ in range(ROUNDS.value):
            for side in found:
                side.work()
        for side in found:
            side.close()
    return found


def ceiling(function, sizes):
    """The most that either framework does a second: operations of `product`, bytes of `copy`."""
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(Path(folder), function, sizes) | {"dtype": dtype()}
        found = time_in_turn(("jax", "eager"), Path(folder), task)
    amount = task["operations"] if "operations" in task else BYTES[dtype()] * task["numbers"]
    return task["repeats"] * amount / min(min(side.seconds) for side in found)


def compare(mode, sizes, ceilings):
    """All figures of a mode; with the `ceilings`, how near to them it comes."""
    names, compiles = ["jax"], mode in WITH_NETWORK and compiled()
    if EAGER.value or not compiles:
        names.append("eager")
    if compiles:
        names.append("compiled")
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(Path(folder), tasks.TASKS[mode], sizes)
        apart, amounts = check(Path(folder), task)
        found = time_in_turn(names, Path(folder), task | {"dtype": dtype()})
    ours, *others = found
    figures = {
        "unit": task["unit"],
        "differences": apart,
        "ratios": {
            side.name: np.divide(side.seconds, ours.seconds).round(3).tolist() for side in others
        },
        "sides": {
            side.name: {
                "per_s": task["count"] / side.median,
                "first_s": side.first,
                "seconds": side.seconds,
                "cpu_seconds": side.cpu_seconds,
                "peak_gib": side.peak / 2**30,
                "versions": side.versions,
            }
            for side in found
        },
    }
    if mode in WITH_NETWORK:
        moved = BYTES[dtype()] * amounts["activations"] + BYTES["float32"] * amounts["parameters"]
        figures["floors_s"] = {
            "operations": amounts["operations"] / ceilings["operations_per_s"],
            "bytes": moved / ceilings["bytes_per_s"],
        }
        for side in found:
            rate = amounts["operations"] / side.median
            figures["sides"][side.name]["operations_per_s"] = rate
            figures["sides"][side.name]["share"] = rate / ceilings["operations_per_s"]
    return figures


def check(folder, task):
    """Differences by kind and stage, and the amounts of a round (see torch_twin/work.py).

    Raises:
      UserError: one is larger than rounding.
    """
    kinds = CHECKED[task["mode"]]
    told = task | {"kinds": {kind: KINDS[kind] for kind in kinds}}
    if "config" in task:
        told["config"] = tasks.without_augmentation(task["config"])
    for name in ("jax", "eager"):
        process = sides.start("check", name, folder, told, TORCH_PYTHON.value)
        amounts = sides.answer(process)
        process.wait()
    found = {}
    for kind in kinds:
        files = [folder / f"{framework}_{kind}.npz" for framework in ("jax", "torch")]
        found[kind] = differences.by_stage(*(dict(np.load(file)) for file in files))
        differences.require_rounding(task["mode"], kind, found[kind])
    return found, amounts


def dtype():
    """Of the activations that are timed."""
    return DTYPE.value or {"cpu": "float32", "cuda": "bfloat16"}[DEVICE.value]


def compiled():
    """Whether PyTorch is timed compiled too."""
    return DEVICE.value == "cuda" if COMPILE.value is None else COMPILE.value


def machine():
    """What it runs on, and the settings that count."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model[0] if model else platform.machine(),
        "threads": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def show(preset, mode, figures):
    """Prints a mode's figures."""
    print(f"{mode}, {preset}, {DEVICE.value}")
    for kind, stages in figures["differences"].items():
        text = ", ".join(f"{stage} {value:.0e}" for stage, value in stages.items())
        print(f"  largest differences in {kind}: {text}")
    for name, own in figures["sides"].items():
        seconds, cpu_seconds = np.median(own["seconds"]), np.median(own["cpu_seconds"])
        text = (
            f"  {chart.label(mode, name):<16} {own['per_s']:10.1f} {figures['unit']}/s, "
            f"{seconds:.3f} s a round ({cpu_seconds:.3f} of all cores), "
            f"the first {own['first_s']:.1f} s, peak {own['peak_gib']:.2f} GiB"
        )
        if "share" in own:
            rate, share = own["operations_per_s"] / 1e9, own["share"]
            text += f", {rate:.0f} GFLOP/s = {share:.0%} of the ceiling"
        print(text)
    for name, ratios in figures["ratios"].items():
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  ratio to {chart.label(mode, name)}: {np.median(ratios):.2f} ({each})")
    if "floors_s" in figures:
        text = ", ".join(f"{value:.3f} s by {name}" for name, value in figures["floors_s"].items())
        print(f"  a round takes at least {text}")
    sys.stdout.flush()


def sizes_of(preset):
    """The preset's, with what the flags change."""
    sizes = tasks.PRESETS[preset](DEVICE.value)
    if IDENTITIES.value:
        sizes.config.batch.identities = IDENTITIES.value
    return dataclasses.replace(sizes, batch=BATCH.value) if BATCH.value else sizes


def main():
    """Prints the figures of each mode, and writes what there is of them."""
    for mode in MODES.value:
        registry.choose("--modes", mode, dict.fromkeys(ALL_MODES))
    for preset in PRESET.value:
        registry.choose("--preset", preset, tasks.PRESETS)
    if OUTPUT.value:
        Path(OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(), "device": DEVICE.value, "dtype": dtype(), "presets": {}}
    for preset in PRESET.value:
        sizes, ceilings = sizes_of(preset), {}
        modes = [
            mode
            for mode in MODES.value
            # What has no network is about the same at all sizes.
            if mode in WITH_NETWORK or (mode in tasks.TASKS and preset == PRESET.value[0])
        ]
        if set(modes) & set(WITH_NETWORK):
            ceilings = {
                "operations_per_s": ceiling(tasks.product, sizes),
                "bytes_per_s": ceiling(tasks.copy, sizes),
            }
            operations, moved = (x / 1e9 for x in ceilings.values())
            print(
                f"ceilings, {preset}, {dtype()}: {operations:.0f} GFLOP/s, {moved:.1f} GB/s",
                flush=True,
            )
        own = {"keep_memory": sizes.config.train.keep_memory, "ceilings": ceilings, "modes": {}}
        found["presets"][preset] = own
        for mode in modes:
            own["modes"][mode] = compare(mode, sizes, ceilings)
            show(preset, mode, own["modes"][mode])
            write(found)
    if "start" in MODES.value:
        first_step.seconds(DEVICE.value)  # prepares data and programs
        found["start_s"] = [first_step.seconds(DEVICE.value) for _ in range(STARTS.value)]
        each = ", ".join(f"{seconds:.1f}" for seconds in found["start_s"])
        print(f"start: {np.median(found['start_s']):.1f} s ({each})")
        write(found)


def write(found):
    """The JSON file and the chart beside it, where the flag wants them."""
    if OUTPUT.value:
        file = Path(OUTPUT.value)
        file.write_text(json.dumps(found, indent=1) + "\n")
        if any(own["modes"] for own in found["presets"].values()):
            file.with_suffix(".svg").write_text(chart.bars(found))


if __name__ == "__main__":
    command_line.run(main)
