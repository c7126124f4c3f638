"""LIP (Liang et al., TPAMI 2018): single people with 16 keypoints each, for the pose teacher."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from vireid_jax.data import index
from vireid_jax.data.builder import Entry, ManualBuilder
from vireid_jax.data.heatmaps import JOINTS
from vireid_jax.types import Modality, UserError

_MISSING, _HIDDEN, _SEEN = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class PoseEntry(Entry):
    """One image.

    Attributes:
      keypoints: [16, 3]: x, y in pixels of the image, visibility 0 missing, 1 hidden, 2 seen.
    """

    keypoints: list


class Lip(ManualBuilder):
    """30,462 images of people to train on, 10,000 for validation, in visible light.

    Source, obtained from the authors for research: `TrainVal_images/{train,val}_images/NAME.jpg`
    and `TrainVal_pose_annotations/lip_{train,val}_set.csv`, whose lines are NAME.jpg and x, y,
    hidden for each of 16 joints, "nan" for a missing one.

    Features: those of `Builder`, of which pid and camid say nothing and are -1, and `keypoints`
    float32 [16, 3] as those of `SyntheticVi`; a missing joint is (-1, -1, 0).
    """

    EXTRA_FEATURES: ClassVar = {
        "keypoints": tfds.features.Tensor(shape=(16, 3), dtype=np.float32, encoding="bytes")
    }
    LAYOUT = "TrainVal_images/ and TrainVal_pose_annotations/"
    IMAGES: ClassVar = {("train", Modality.VISIBLE): 30_462, ("val", Modality.VISIBLE): 10_000}

    def entries(self, root: Path) -> dict[str, list[PoseEntry]]:
        """See the class."""
        return {split: _entries(root, split) for split in ("train", "val")}

    def problems(self, splits):
        """See the base class; there are no identities to ask for."""
        return self.listing_problems(splits)


def builder(data) -> Lip:
    """The builder of a config's `data` section: `dir`."""
    return Lip(data_dir=data.dir)


def _entries(root, split):
    file = root / f"TrainVal_pose_annotations/lip_{split}_set.csv"
    found = []
    for number, line in enumerate(index.text(file).splitlines(), 1):
        name, *values = line.strip().split(",")
        path = f"TrainVal_images/{split}_images/{name}"
        try:
            keypoints = _keypoints(values)
        except ValueError as error:
            raise UserError(
                f"{file}, line {number}: {error}; it should be NAME.jpg and x,y,hidden for "
                f"each of {len(JOINTS)} joints, nan where one is missing: mend or remove the line"
            ) from error
        if not (root / path).is_file():
            raise UserError(f"{file}, line {number}: {root / path} does not exist")
        found.append(PoseEntry(path, -1, -1, Modality.VISIBLE, keypoints))
    return found


def _keypoints(values):
    if len(values) != 3 * len(JOINTS):
        raise ValueError(f"{len(values)} values instead of {3 * len(JOINTS)}")
    keypoints = []
    for x, y, hidden in zip(*[iter(values)] * 3, strict=True):
        if "nan" in (x, y):
            keypoints.append([-1, -1, _MISSING])
        else:
            keypoints.append([float(x), float(y), _HIDDEN if float(hidden) == 1 else _SEEN])
    return keypoints
