"""Table IV: what each component of the method adds, over several seeds.

$ python scripts/ablation.py --config=configs/synthetic.py --workdir=runs/ablation

trains each row with each seed (an interrupted call continues, and several calls at once share the
runs among them), and prints the table: rank-1 and mAP by the first protocol, mean and standard
deviation over seeds, the gain in mAP over the row before with the same seed and its p by a paired
t-test, and the paper's figures. --together trains the seeds of a row as one program instead.
--rows=pgfa,pabr,five_parts makes Table III.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from ml_collections import config_flags

import figures
from vireid_jax import command_line
from vireid_jax.evaluation import comparison
from vireid_jax.training import train
from vireid_jax.training.devices import keep_memory
from vireid_jax.training.experiment import Experiment
from vireid_jax.types import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Of all runs, without a variant.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs, ROW/replica_SEED.")
ROWS = flags.DEFINE_list(
    "rows", ["baseline", "peb", "peb_pose", "full"], "Variants, each compared with the one before."
)
SEEDS = flags.DEFINE_integer("seeds", 5, "How many runs a row has.", lower_bound=1)
TOGETHER = flags.DEFINE_bool("together", False, "Train the seeds of a row as one program.")
PAGE = flags.DEFINE_string("page", None, "Also write the table and a plot into this page of docs/.")

# Tables III (last) and IV, rank-1 / mAP: SYSU-MM01 in all-search; RegDB, visible to thermal.
PUBLISHED = {
    ("baseline", "f_ID"): ("57.03 / 56.21", "85.76 / 77.21"),
    ("peb", "f_ID"): ("60.19 / 58.96", "87.39 / 81.75"),
    ("peb_pose", "f_ID"): ("63.90 / 62.79", "89.25 / 84.16"),
    ("full", "f_ID"): ("65.82 / 64.52", "92.14 / 87.88"),
    ("peb", "f_ALL"): ("65.05 / 62.78", "89.53 / 84.12"),
    ("peb_pose", "f_ALL"): ("68.84 / 65.94", "91.96 / 87.08"),
    ("full", "f_ALL"): ("71.21 / 67.15", "93.35 / 88.98"),
    ("pgfa", "f_ID"): ("10.04 / 11.45", "-"),
    ("pabr", "f_ID"): ("40.73 / 42.19", "-"),
    ("five_parts", "f_ID"): ("62.82 / 61.90", "-"),
}
COLUMNS = ("feature", "row", "rank-1", "mAP", "gain in mAP", "p", "SYSU-MM01*", "RegDB*")


def rows_of(compared: list[comparison.Compared]) -> list[tuple[str, ...]]:
    """The table's rows."""
    return [
        (
            c.feature,
            c.variant,
            comparison.spread(c.rank1),
            comparison.spread(c.mAP),
            "" if c.gain is None else comparison.spread(c.gain),
            "" if c.p is None else f"{c.p:.2g}",
            *PUBLISHED.get((c.variant, c.feature), ("-", "-")),
        )
        for c in compared
    ]


def plot(compared: list[comparison.Compared], file: Path) -> None:
    """A panel for each feature: the mAP of every seed from row to row, thin, and the mean."""
    panels = {}
    for c in compared:
        panels.setdefault(c.feature, {})[c.variant] = c.mAP
    figure, axes = plt.subplots(
        1, len(panels), figsize=(8, 3.5), sharey=True, squeeze=False, layout="constrained"
    )
    for own, (feature, rows) in zip(axes[0], panels.items(), strict=True):
        values = np.stack(list(rows.values()))  # [rows, seeds]
        own.plot(list(rows), values, "o-", color="tab:blue", alpha=0.3, markersize=4)
        own.plot(list(rows), values.mean(1), "o-", color="tab:blue", linewidth=3)
        own.set_title(feature)
    axes[0, 0].set_ylabel("mAP, %")
    figure.savefig(file, dpi=120)


def main():
    """Trains what is missing, then prints."""
    from configs import variants  # importable once `command_line.run` is running

    name = f"ablation {','.join(ROWS.value)}"
    page = PAGE.value and Path(PAGE.value)
    if page:
        figures.section(page, name)  # or refuse before anything slow
    if any(CONFIG.value.replicas.values()):
        raise UserError("config.replicas is this script's: give --seeds")
    if CONFIG.value.variant != "full":
        raise UserError(f"variants are this script's: give --config without {CONFIG.value.variant}")
    keep_memory(CONFIG.value.train.keep_memory)
    configs = {}
    for row in ROWS.value:
        config = CONFIG.value.copy_and_resolve_references()
        with config.unlocked():
            try:
                variants.apply(config, row)
            except ValueError as error:
                raise UserError(f"--rows: {error}") from error
        Experiment(config).require_all_losses()
        config.replicas.seed = tuple(range(SEEDS.value))
        configs[row] = config
    results, folders = {}, []
    for row, config in configs.items():
        place = str(Path(WORKDIR.value) / row)
        folders = train.train_in_turn(config, place, TOGETHER.value)
        results[row] = folders and [json.loads((f / "results.json").read_text()) for f in folders]
    if None in results.values():
        print("another process still trains runs of this table: repeat the command when it ends")
        return
    compared = comparison.compare(results)
    table = rows_of(compared)
    widths = [max(map(len, column)) for column in zip(COLUMNS, *table, strict=True)]
    for cells in (COLUMNS, *table):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)))
    print("* of the paper, rank-1 / mAP")
    if page:
        picture = page.parent / "images" / f"{'_'.join(ROWS.value)}.png"
        picture.parent.mkdir(exist_ok=True)
        plot(compared, picture)
        step = results[ROWS.value[0]][0]["step"]
        environment = json.loads((folders[0] / "environment.json").read_text())
        seeds = "one seed" if SEEDS.value == 1 else f"{SEEDS.value} seeds"
        notes = f"{step:,} steps, {seeds}. {figures.made_with(environment)}"
        notes += " \\* of the paper, rank-1 / mAP."
        image = f"![mAP of each row]({picture.relative_to(page.parent)})"
        figures.write(page, name, f"{figures.markdown(COLUMNS, table)}\n\n{notes}\n\n{image}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
