"""Fig. 5: mAP over a run's epochs for other weights of the losses, one changed at a time.

$ python scripts/loss_weights.py --config=configs/synthetic.py --workdir=runs/loss_weights

trains what is missing (an interrupted call continues, and several calls at once share the runs
among them), evaluates ten times during each run, and draws a panel for each of beta, lambda and
gamma: mAP of the widest feature by the first protocol. The run with the config's own weights is in
every panel. --together trains all runs as one program.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from absl import flags
from ml_collections import config_flags

from vireid_jax import command_line
from vireid_jax.training import train
from vireid_jax.training.devices import keep_memory
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.workdir import EVALUATIONS, read_lines
from vireid_jax.types import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Of all runs.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs, replica_NUMBER.")
TIMES = flags.DEFINE_list(
    "times", ["0", "0.2", "5"], "Other weights of a loss, in units of the config's."
)
TOGETHER = flags.DEFINE_bool("together", False, "Train all runs as one program.")
OUTPUT = flags.DEFINE_string("output", "loss_weights.png", "The picture.")
GREEK = {"hetero_center": "β (L_hctri)", "pose": "λ (L_pose)", "distillation": "γ (L_KD)"}
EVALUATED = 10  # times a run


def curve(folder: Path) -> tuple[list[int], list[float]]:
    """Steps, and the mAP of the widest feature by the first protocol."""
    results = json.loads((folder / "results.json").read_text())
    protocol = next(iter(results["protocols"]))
    points = [(line["step"], line[protocol]) for line in read_lines(folder / EVALUATIONS)]
    points.append((results["step"], results["protocols"][protocol]))
    widest = [name for name in points[-1][1] if name != "trials"][-1]
    return [step for step, _ in points], [found[widest]["mAP"]["mean"] for _, found in points]


def main():
    """Trains, draws, prints the last mAP of each run."""
    if not Path(OUTPUT.value).absolute().parent.is_dir():
        raise UserError(f"--output={OUTPUT.value}: there is no such folder")
    try:
        times = [float(x) for x in TIMES.value]
    except ValueError as error:
        raise UserError(f"--times={','.join(TIMES.value)} must be numbers") from error
    config = CONFIG.value.copy_and_resolve_references()
    if missing := GREEK.keys() - config.loss.keys():
        raise UserError(f"config.loss has no {', '.join(sorted(missing))}: use the variant full")
    keep_memory(config.train.keep_memory)
    experiment = Experiment(config)
    experiment.require_all_losses()
    config.train.eval_every = max(experiment.steps // EVALUATED, 1)
    usual = {name: config.loss[name].weight for name in GREEK}
    runs = [usual] + [usual | {name: x * usual[name]} for name in GREEK for x in times]
    for name in GREEK:
        config.replicas[name] = tuple(run[name] for run in runs)
    folders = train.train_in_turn(config, WORKDIR.value, TOGETHER.value)
    if folders is None:
        print("another process still trains runs of this picture: repeat the command when it ends")
        return
    curves = list(map(curve, folders))
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), sharey=True, layout="constrained")
    for own, name in zip(axes, GREEK, strict=True):
        of_panel = [i for i, run in enumerate(runs) if run == usual | {name: run[name]}]
        for i in sorted(of_panel, key=lambda i: runs[i][name]):
            steps, values = curves[i]
            own.plot(steps, values, label=f"{runs[i][name]:g}")
            print(f"{name:<14} {runs[i][name]:<8g} mAP {values[-1]:.2f}")
        own.set(title=GREEK[name], xlabel="step")
        own.legend()
    axes[0].set_ylabel("mAP, %")
    figure.savefig(OUTPUT.value, dpi=120)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
