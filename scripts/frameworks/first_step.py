"""How soon a run of configs/synthetic.py makes its first step."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vireid_jax.types import UserError

_ROOT = Path(__file__).parents[2]
_COMMAND = [
    sys.executable,
    "main.py",
    "--config=configs/synthetic.py",
    "--config.train.log_every=1",
]


def seconds(device: str) -> float:
    """From the command until the losses of the first step are written, which the second waits for.

    It renders the data where they are not yet, and programs that an earlier call kept are found.

    Raises:
      UserError: it ended before.
    """
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        began = time.perf_counter()
        process = subprocess.Popen(
            [*_COMMAND, f"--workdir={metrics.parent}"],
            cwd=_ROOT, env=os.environ | {"JAX_PLATFORMS": device},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
                time.sleep(0.01)
            took, status = time.perf_counter() - began, process.poll()
        finally:
            process.kill()
            process.wait()
    if status is not None:
        raise UserError(f"{' '.join(_COMMAND[1:])} ended with status {status}: try it alone")
    return took
