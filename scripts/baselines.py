"""Prints what hand-made features reach on a prepared data set.

python scripts/baselines.py --config=configs/synthetic.py
"""

import sys

from absl import app, flags
from ml_collections import config_flags

from vireid_jax.data.images import load_images
from vireid_jax.evaluation.baselines import baseline_results
from vireid_jax.evaluation.protocols import protocols_for
from vireid_jax.types import UserError

FIGURES = ("rank1", "rank10", "mAP", "mINP")

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)


def table(results: dict[str, dict]) -> str:
    """`results` of `baseline_results` as text: one block per protocol, percent."""
    lines = []
    for protocol in results["chance"]:
        lines += ["", f"{protocol:<20}" + "".join(f"{figure:>8}" for figure in FIGURES)]
        for name, measured in results.items():
            means = (measured[protocol][figure]["mean"] for figure in FIGURES)
            lines.append(f"{name:<20}" + "".join(f"{mean:8.2f}" for mean in means))
    return "\n".join(lines[1:])


def main(argv):
    """Loads both splits, measures, prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    data = _CONFIG.value.data
    try:
        test = load_images(data, "test")
        protocols = protocols_for(data.protocol, test)
        print(table(baseline_results(load_images(data, "train"), test, protocols)))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
