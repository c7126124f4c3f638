"""Prints what hand-made features reach on a prepared data set.

python scripts/baselines.py --config=configs/synthetic.py
"""

from absl import flags
from ml_collections import config_flags

from vireid_jax import command_line
from vireid_jax.data.images import load_images
from vireid_jax.evaluation.baselines import baseline_results
from vireid_jax.training.experiment import protocols_of

CONFIG = config_flags.DEFINE_config_file("config", None, "File of the configuration.")
FIGURES = ("rank1", "rank10", "mAP", "mINP")


def table(results: dict[str, dict]) -> str:
    """`results` of `baseline_results` as text: one block per protocol, percent."""
    lines = []
    for protocol in results["chance"]:
        lines += ["", f"{protocol:<20}" + "".join(f"{figure:>8}" for figure in FIGURES)]
        for name, measured in results.items():
            means = (measured[protocol][figure]["mean"] for figure in FIGURES)
            lines.append(f"{name:<20}" + "".join(f"{mean:8.2f}" for mean in means))
    return "\n".join(lines[1:])


def main():
    """Loads both splits, measures, prints."""
    data = CONFIG.value.data
    test = load_images(data, "test")
    protocols = protocols_of(CONFIG.value, test)
    print(table(baseline_results(load_images(data, "train"), test, protocols)))


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command_line.run(main)
