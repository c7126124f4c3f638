"""The PyTorch side of scripts/compare_frameworks.py.

$ python run.py check|time FOLDER

FOLDER holds task.json, weights.npz (tensors by published name) and inputs/NAME.npy. What a side
says is a line of JSON.
"""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from work import TASKS


def main(verb, folder):
    """Checks, or works on demand."""
    folder = Path(folder)
    task = json.loads((folder / "task.json").read_text())
    torch.set_num_threads(task["threads"])
    weights = {}
    if (folder / "weights.npz").exists():
        with np.load(folder / "weights.npz") as archive:
            weights = {name: torch.from_numpy(archive[name]) for name in archive.files}
    inputs = {file.stem: np.load(file) for file in (folder / "inputs").glob("*.npy")}
    {"check": check, "time": work_on_demand}[verb](task, weights, inputs, folder)


def check(task, weights, inputs, folder):
    """Writes FOLDER/torch_KIND.npz, and answers with the amounts of a round of the first kind."""
    torch.backends.cudnn.allow_tf32 = False
    amounts = None
    for kind, options in task["kinds"].items():
        work = TASKS[task["mode"]](task | options, weights, inputs)
        found, counted = work.check()
        amounts = amounts or counted
        arrays = {name: x.cpu() if torch.is_tensor(x) else x for name, x in found.items()}
        np.savez(folder / f"torch_{kind}.npz", **arrays)
    answer(amounts)


def work_on_demand(task, weights, inputs, folder):
    """Works and answers with the seconds; for each line read works untimed, and again timed."""
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.benchmark = True
    work = TASKS[task["mode"]](task, weights, inputs)
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if task["device"] == "cuda":
        versions["device"] = torch.cuda.get_device_name()
    answer(timed(work.round) | {"versions": versions})
    for _ in sys.stdin:
        work.round()  # what the other side did has taken caches and memory
        answer(timed(work.round) | {"peak": peak(task["device"])})


def timed(function):
    """Seconds that it takes, and those of all processor cores."""
    start = time.perf_counter(), time.process_time()
    function()
    return {"seconds": time.perf_counter() - start[0], "cpu": time.process_time() - start[1]}


def peak(device):
    """Most memory ever held on a GPU, bytes; of a process on CPUs its parent asks the system."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def answer(content):
    """A line of JSON to whoever asked."""
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
