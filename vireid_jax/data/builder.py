"""What the TFDS builders of all data sets share; none of it needs TensorFlow."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vireid_jax.data import files
from vireid_jax.types import Modality, UserError

IMAGE_FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3)),
    "pid": np.int32,
    "label": np.int32,
    "camid": np.int32,
    "modality": np.int32,
    "path": tfds.features.Text(),
}
"""Of every data set: an RGB JPEG or PNG; the set's own numbers; the position of the pid among those
to train on, -1 elsewhere; 0 visible, 1 infrared; a name that no other image has."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose examples have `IMAGE_FEATURES` and the class's `EXTRA_FEATURES`."""

    # TFDS would work this out with importlib_resources, which it neither declares nor installs.
    code_path = epath.Path(__file__)
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.1.0": "Labels; JPEG files as they are."}
    EXTRA_FEATURES: ClassVar = {}

    def __init__(self, *, file_format="array_record", **kwargs):
        """As every builder, but for a file format that needs no TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self):
        features = tfds.features.FeaturesDict(IMAGE_FEATURES | self.EXTRA_FEATURES)
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of a data set that its users obtain by hand.

    Attributes:
      path: below the set's folder; see `files.encoded`.
      pid, camid: the set's own numbers.
      modality: of the camera.
    """

    path: str
    pid: int
    camid: int
    modality: Modality


class ManualBuilder(Builder, skip_registration=True):
    """A builder that reads a folder in the layout of the set's authors.

    Attributes:
      LAYOUT: what the folder holds, for messages.
      CAMERAS: camids by modality; empty where it depends.
      EXPECTED: images that the published set has, by (split, modality), as far as known.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Name the folder in config.data.source."
    LAYOUT: ClassVar[str]
    CAMERAS: ClassVar[dict[Modality, tuple[int, ...]]] = {}
    EXPECTED: ClassVar[dict[tuple[str, Modality], int]] = {}

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """All images below `root` by split.

        Raises:
          UserError: an index file or an image that it names is missing.
        """
        raise NotImplementedError

    def in_cache_order(self, splits: dict[str, list[Entry]]) -> list[Entry]:
        """The images to train on in the order of the caches that published code makes of them."""
        return splits["train"]

    def _split_generators(self, dl_manager):
        root = Path(dl_manager.manual_dir)
        splits = self.entries(root)
        for split, entries in splits.items():
            if not entries:
                raise UserError(
                    f"{root} has no image for the split {split!r} of {self.name}: it should hold "
                    f"{self.LAYOUT}"
                )
        return {
            split: self._generate_examples(root, entries, labels(splits, split))
            for split, entries in splits.items()
        }

    def _generate_examples(self, root, entries, label):
        for entry in entries:
            example = dataclasses.asdict(entry) | {
                "image": files.encoded(root, entry.path),
                "label": label.get(entry.pid, -1),
                "modality": int(entry.modality),
            }
            yield entry.path, example

    def require(self, data) -> "ManualBuilder":
        """Itself, prepared or with a folder to prepare it from.

        Raises:
          UserError: neither.
        """
        if not self.is_prepared() and not Path(data.source or "?").is_dir():
            raise UserError(
                f"{self.name} is not in {data.dir} yet and config.data.source={data.source!r} is "
                f"no folder: give --config.data.source=DIR, the folder that holds {self.LAYOUT}"
            )
        return self


def labels(splits: dict[str, list], split: str) -> dict[int, int]:
    """Label by pid: positions in ascending order among train and val together; {} for test."""
    if split == "test":
        return {}
    pids = {entry.pid for name, own in splits.items() if name != "test" for entry in own}
    return {pid: label for label, pid in enumerate(sorted(pids))}
