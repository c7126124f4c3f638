"""Checks a data set that was obtained by hand, and converts it.

$ python scripts/prepare_data.py --dataset=NAME --source=DIR [--heatmaps=DIR] [--check_only]

Prints counts and all that is unusual or wrong, and ends with status 2 if something is wrong; what
is converted may be interrupted and repeated. docs/datasets.md describes the data sets.
"""

import sys
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from vireid_jax import command_line, registry
from vireid_jax.data import checking, heatmaps, images
from vireid_jax.types import Modality, UserError

DATASET = flags.DEFINE_string("dataset", None, "A file in vireid_jax/data/datasets.")
SOURCE = flags.DEFINE_string("source", None, "The folder of the data set.")
DIR = flags.DEFINE_string("dir", "data", "Where prepared data lie: config.data.dir.")
TRIAL = flags.DEFINE_integer("trial", 1, "Of RegDB.")
TEST_FRACTION = flags.DEFINE_float("test_fraction", 0.5, "Of the identities of a folder.")
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "Of the draw of these.")
HEATMAPS = flags.DEFINE_string(
    "heatmaps", None, "Folder of train_{rgb,ir}[_trialN]_merged_heatmap.npy, to convert as well."
)
HEIGHT = flags.DEFINE_integer("height", 288, "Of training images, for --heatmaps.")
WIDTH = flags.DEFINE_integer("width", 144, "Of training images, for --heatmaps.")
IMAGES = flags.DEFINE_integer("images", 4, "K: identities with fewer images are named.")
CHECK_ONLY = flags.DEFINE_bool("check_only", False, "Convert nothing.")


def main():
    """Checks, then converts."""
    from configs import default  # importable once `command_line.run` is running

    data = default.get_config().data
    data.dataset, data.source, data.dir = DATASET.value, SOURCE.value, DIR.value
    data.trial, data.height, data.width = TRIAL.value, HEIGHT.value, WIDTH.value
    data.test_fraction, data.split_seed = TEST_FRACTION.value, SPLIT_SEED.value
    root = Path(data.source)
    if not root.is_dir():
        raise UserError(f"--source={data.source} is no folder")
    if data.dataset == "synthetic_vi":
        raise UserError(f"{data.dataset} is not made from a folder: training renders it")
    builder = registry.find("vireid_jax.data.datasets", data.dataset, "data set").builder(data)
    report = checking.inspect(builder, root, IMAGES.value)
    maps = None
    if HEATMAPS.value:
        try:
            maps = _heatmaps(data, builder, root, Path(HEATMAPS.value))
        except UserError as error:
            report.problems.append(str(error))
    print(report)
    if report.problems:
        print(f"{len(report.problems)} things to put right in {root}", file=sys.stderr)
        sys.exit(2)
    if CHECK_ONLY.value:
        return
    print(f"prepared in {images.prepare(data).data_dir}")
    if maps:
        name = f"{data.dataset}{heatmaps.trial_suffix(data)}_merged.npz"
        file = Path(data.dir) / "heatmaps" / name
        heatmaps.save(file, *maps)
        print(f"heatmaps in {file}: train with --config.data.heatmap_file={file}")


def _heatmaps(data: ConfigDict, builder, root, folder):
    """Paths, maps and their origin from the published code's files, whose order is its own."""
    entries = builder.in_cache_order(builder.entries(root))
    size = data.height // heatmaps.STRIDE, data.width // heatmaps.STRIDE
    trial = heatmaps.trial_suffix(data)
    paths, maps, files = [], [], []
    for modality, word in zip(Modality, ("rgb", "ir"), strict=True):
        own = [entry.path for entry in entries if entry.modality == modality]
        files.append(folder / f"train_{word}{trial}_merged_heatmap.npy")
        maps.append(heatmaps.from_cache(files[-1], len(own), size))
        paths += own
    made_by = {"converted from": [str(file) for file in files]}
    return paths, np.concatenate(maps), made_by


if __name__ == "__main__":
    flags.mark_flags_as_required(["dataset", "source"])
    command_line.run(main)
