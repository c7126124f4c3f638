"""Compares this implementation with reference numbers of the PyTorch networks it implements.

$ python scripts/check_parity.py DIR [--float64] [--cpu_convolution]

DIR holds fixtures (.npz): the whole network in evaluation and training, the refinement stage, the
pose teacher, losses, metrics, sampler, schedules, heatmaps. Prints a line for each file, with the
error that comes nearest to its tolerance, and ends with status 1 if one is too large, if a file is
of no known kind, or if a reference number in it was not compared.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags

from parity import evaluation, network, operations, pose
from parity.check import Check
from vireid_jax import command_line
from vireid_jax.interop.fixtures import Rule
from vireid_jax.types import UserError

FLOAT64 = flags.DEFINE_bool("float64", False, "Compute in float64; every tolerance is 1e-6 then.")

KINDS = {
    "model_eval_": network.model_eval,
    "model_train_": network.model_train,
    "refine_": pose.refine,
    "gccpm_": pose.gccpm,
    "losses_ops": operations.losses_ops,
    "eval_metrics": evaluation.eval_metrics,
    "sampler_lr_pose_teacher": evaluation.sampler_lr_pose_teacher,
}


def main(directory: str) -> None:
    """Runs the comparisons of every file in `directory`."""
    folder = Path(directory)
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UserError(f"{folder} has no .npz files")
    jax.config.update("jax_enable_x64", FLOAT64.value)
    jax.config.update("jax_default_matmul_precision", "highest")
    settings = folder / "set.json"
    rule = Rule(json.loads(settings.read_text())["tag"] if settings.exists() else "")
    failed = 0
    for file in files:
        failed += not _checked(file, rule)
    sys.exit(1 if failed else 0)


def _checked(file, rule):
    function = next((f for prefix, f in KINDS.items() if file.stem.startswith(prefix)), None)
    if function is None:
        print(f"FAIL {file.name}: of no known kind", flush=True)
        return False
    check = Check(file, rule)
    try:
        function(check)
    except (UserError, KeyError, IndexError, ValueError) as error:
        print(f"FAIL {file.name}: {type(error).__name__}: {error}", flush=True)
        return False
    share, error, tolerance, key = check.worst
    forgotten = check.forgotten()
    ok = share <= 1 and not forgotten and check.comparisons > 0
    note = f"; not compared: {', '.join(forgotten)}" if forgotten else ""
    print(
        f"{'ok  ' if ok else 'FAIL'} {file.name:<32} largest relative error {error:.1e}, "
        f"tolerance {tolerance:.0e} ({key}){note}",
        flush=True,
    )
    return ok


if __name__ == "__main__":
    command_line.run(main)
