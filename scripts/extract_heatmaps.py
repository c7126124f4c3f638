"""Heatmap targets for a data set, by a pose teacher.

$ python scripts/extract_heatmaps.py --dataset=NAME --source=DIR --teacher=FILE --output=DIR

FILE is a GCCPM checkpoint (PyTorch's, or converted by scripts/convert_weights.py), or the
pose_teacher.safetensors of a run such as configs/pose_lip.py. What is written, one file for the
images to train on, is for config.data.heatmap_file; an interrupted call continues.
"""

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np
from absl import flags

from vireid_jax import command_line
from vireid_jax.data import heatmaps
from vireid_jax.data.images import load_images
from vireid_jax.training import pose_maps
from vireid_jax.types import UserError

DATASET = flags.DEFINE_string("dataset", None, "A file in vireid_jax/data/datasets.")
SOURCE = flags.DEFINE_string("source", "", "The folder of the data set; none if prepared.")
DIR = flags.DEFINE_string("dir", "data", "Where prepared data lie: config.data.dir.")
TIER = flags.DEFINE_string("tier", "", "Of synthetic_vi.")
TRIAL = flags.DEFINE_integer("trial", 1, "Of RegDB.")
TEST_FRACTION = flags.DEFINE_float("test_fraction", 0.5, "Of the identities of a folder.")
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "Of the draw of these.")
TRAIN_SPLIT = flags.DEFINE_string("train_split", "train", "train+val for SYSU-MM01.")
HEIGHT = flags.DEFINE_integer("height", 288, "Of the training images.")
WIDTH = flags.DEFINE_integer("width", 144, "Of the training images.")
TEACHER = flags.DEFINE_string("teacher", None, "File of the teacher's weights.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the heatmaps.")
MERGED = flags.DEFINE_bool("merged", True, "One channel, the maximum over the 16 joints.")
FLIP = flags.DEFINE_bool("flip", False, "Average with the mirrored image.")
SCALES = flags.DEFINE_list("scales", ["1"], "Average over these, e.g. 0.75,1,1.25.")
BATCH = flags.DEFINE_integer("batch", 32, "Images at a time on each device.")


def main():
    """Reads the teacher and the images, writes the file and the images per second."""
    from configs import default  # importable once `command_line.run` is running

    try:
        scales = tuple(float(scale) for scale in SCALES.value)
    except ValueError as error:
        raise UserError(f"--scales={','.join(SCALES.value)} are no numbers") from error
    teacher = pose_maps.load(TEACHER.value)
    data = default.get_config().data
    data.dataset, data.source, data.dir = DATASET.value, SOURCE.value, DIR.value
    data.tier, data.trial, data.train_split = TIER.value, TRIAL.value, TRAIN_SPLIT.value
    data.test_fraction, data.split_seed = TEST_FRACTION.value, SPLIT_SEED.value
    data.protocol = "regdb" if data.tier == "regdb" else "sysu"  # with which a tier has to agree
    data.height, data.width, data.heatmaps = HEIGHT.value, WIDTH.value, "none"
    found = load_images(data, "train")
    made_by = {
        "teacher": hashlib.sha1(Path(TEACHER.value).read_bytes()).hexdigest(),
        "stages": teacher.stages,
        "flip": FLIP.value,
        "scales": scales,
        "images": found.fingerprint,
    }
    kind = "merged" if MERGED.value else "joints"
    tier = f"_{data.tier}" if data.tier else ""
    name = f"{data.dataset}{tier}{heatmaps.trial_suffix(data)}_{kind}.npz"
    file = Path(OUTPUT.value) / name
    identity = hashlib.sha1(repr(sorted(made_by.items())).encode()).hexdigest()[:12]
    partial = file.with_name(f"{file.stem}_{identity}.partial")
    predict = pose_maps.make_predict(teacher, data.height, data.width, FLIP.value, scales)
    start = time.perf_counter()
    maps = pose_maps.extract(
        predict, teacher.variables, found.images, MERGED.value, BATCH.value, partial
    )
    rate = len(found) / (time.perf_counter() - start)
    heatmaps.save(file, found.path, np.asarray(maps), made_by)
    shutil.rmtree(partial)
    print(f"{file}: {len(found)} images, {rate:.1f} images/s with compilation")
    print(f"train with --config.data.heatmap_file={file} --config.data.heatmaps={kind}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["dataset", "teacher", "output"])
    command_line.run(main)
