"""Mean and standard deviation over runs: RegDB's ten trials, or several seeds.

$ python scripts/aggregate.py runs/regdb_1,runs/regdb_2,... [--output=FILE.json]
$ python scripts/aggregate.py 'runs/regdb_*'
"""

import glob
import json
from pathlib import Path

from absl import flags

from vireid_jax import command_line
from vireid_jax.evaluation import report
from vireid_jax.training import workdir
from vireid_jax.types import UserError

OUTPUT = flags.DEFINE_string("output", None, "File for the figures, as in results.json.")
ALIKE = ("dataset", "selection", "flip_averaging", "re_ranking", "losses")  # in results.json
TRIAL = "config.data.trial"  # each has heatmaps of its own
OF_EACH_RUN = {TRIAL, "config.seed"}  # one of these tells the runs apart


def main(runs: str) -> None:
    """Prints the table of `runs`: work dirs with commas between them, or a pattern."""
    folders = [Path(f) for part in runs.split(",") for f in sorted(glob.glob(part)) or [part]]
    configs, results = (
        [_read(folder / name) for folder in folders] for name in ("config.json", "results.json")
    )
    for folder, config in zip(folders, configs, strict=True):
        if config["task"] != "reid":
            raise UserError(f"{folder} is of a pose teacher: of those there is no common table")
        differ = set(workdir.differences(configs[0], config)) - workdir.BOOKKEEPING
        own = OF_EACH_RUN | ({"config.data.heatmap_file"} if TRIAL in differ else set())
        if foreign := differ - own:
            raise UserError(
                f"{folders[0]} and {folder} are runs of different configs, which have no common "
                f"mean: {', '.join(sorted(foreign))}"
            )
    for folder, result in zip(folders[1:], results[1:], strict=True):
        alike = (*ALIKE, "step") if result["selection"] == "last" else ALIKE
        differ = [key for key in alike if result[key] != results[0][key]]
        differ += ["protocols"] * (result["protocols"].keys() != results[0]["protocols"].keys())
        if differ:
            raise UserError(
                f"{folders[0]} and {folder} were evaluated differently ({', '.join(differ)}): "
                "evaluate them alike with --mode=evaluate"
            )
    told_apart = [(c["data"]["trial"], c["seed"]) for c in configs]
    if len(set(told_apart)) < len(folders):
        raise UserError(f"two of the runs {runs} have the same trial and seed: name each once")
    together = report.aggregate(results)
    print(report.table(together))
    if OUTPUT.value:
        try:
            Path(OUTPUT.value).write_text(json.dumps(together, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--output={OUTPUT.value} cannot be written: {error}") from error


def _read(file):
    if not file.is_file():
        raise UserError(f"{file} is missing: the run has not ended, or {file.parent} is none")
    return json.loads(file.read_text())


if __name__ == "__main__":
    command_line.run(main)
