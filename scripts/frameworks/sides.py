"""The processes of scripts/compare_frameworks.py, told what to do by a folder and by lines."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from vireid_jax.types import UserError

_SCRIPTS = Path(__file__).parents[1]
OURS = _SCRIPTS / "frameworks" / "ours.py"
THEIRS = _SCRIPTS / "torch_twin" / "run.py"


class Side:
    """What works on demand: one process at a time, from `start` to `close`; figures are of all.

    Attributes:
      name: "jax"; of PyTorch "eager" or "compiled".
      first: seconds of the very first round, with what is compiled in it.
      versions: of what it runs on.
      seconds: of each timed round since, of all processes.
      cpu_seconds: the same, of all processor cores: the fairer figure where others use them too.
      peak: bytes that one ever held, of memory or of a GPU's.
    """

    def __init__(self, name: str, folder: Path, task: dict, python: str):
        """See `start`."""
        self.name, self.first, self.peak, self.seconds, self.cpu_seconds = name, None, 0, [], []
        self._arguments = "time", name, folder, task, python

    def start(self) -> None:
        """A process, which has worked once when this returns."""
        self._process = start(*self._arguments)
        ready = answer(self._process)
        self.first, self.versions = self.first or ready["seconds"], ready["versions"]

    def work(self) -> None:
        """Two more rounds, the second timed."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        done = answer(self._process)
        self.seconds.append(done["seconds"])
        self.cpu_seconds.append(done["cpu"])
        self.peak = max(self.peak, done["peak"] or held(self._process.pid))

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    @property
    def median(self) -> float:
        """Of the seconds of a round."""
        return float(np.median(self.seconds))


def start(verb: str, name: str, folder: Path, task: dict, python: str) -> subprocess.Popen:
    """The process of a side.

    Args:
      verb: "check" or "time", see scripts/torch_twin/run.py.
      name: of the side.
      folder: with weights and inputs; nothing else may be starting in it.
      task: what the side is told beside them.
      python: interpreter with PyTorch.
    """
    ours = name == "jax"
    command = [sys.executable, OURS] if ours else [python, THEIRS]
    (folder / "task.json").write_text(json.dumps(task | {"compile": name == "compiled"}))
    environment = os.environ | {
        "OMP_NUM_THREADS": str(task["threads"]),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the other side needs memory too
    }
    if verb == "time":  # the first of its processes finds no program, those after it do
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "xla")
    else:  # in minutes less: nothing is timed
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command), verb, str(folder)], env=environment, **pipes)


def held(pid: int) -> int:
    """Most memory that a process ever held, bytes; its own getrusage may tell its parent's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def answer(process: subprocess.Popen) -> dict:
    """What a side says next.

    Raises:
      UserError: it ended instead.
    """
    line = process.stdout.readline()
    if not line:
        raise UserError(
            f"{process.args[1]} ended with status {process.wait()}, see above; PyTorch's side "
            "needs scripts/torch_twin/requirements.txt, or --torch_python=INTERPRETER"
        )
    return json.loads(line)
