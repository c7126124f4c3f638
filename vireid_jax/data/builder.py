"""What the TFDS builders of all data sets share; none of it needs TensorFlow."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator
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
      CAMERAS: camids by (split, modality), as far as known.
      IDENTITIES, IMAGES: what the published set has, by split and by (split, modality), as far as
        known.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Name the folder in config.data.source."
    LAYOUT: ClassVar[str]
    CAMERAS: ClassVar[dict[tuple[str, Modality], tuple[int, ...]]] = {}
    IDENTITIES: ClassVar[dict[str, int]] = {}
    IMAGES: ClassVar[dict[tuple[str, Modality], int]] = {}

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """All images below `root` by split.

        Raises:
          UserError: an index file or an image that it names is missing.
        """
        raise NotImplementedError

    def in_cache_order(self, splits: dict[str, list[Entry]]) -> list[Entry]:
        """The images to train on in the order of the caches that published code makes of them."""
        return splits["train"]

    def problems(self, splits: dict[str, list[Entry]]) -> Iterator[str]:
        """What nobody can train or test with, and the fix, without reading an image."""
        yield from self.listing_problems(splits)
        for split, entries in splits.items():
            for modality in Modality if split != "test" else ():
                shown = {entry.pid for entry in entries if entry.modality == modality}
                lacking = {entry.pid for entry in entries} - shown
                if lacking:
                    yield (
                        f"identities of {split} without an {modality.name.lower()} image: "
                        f"{named(lacking)}; add one or take them out of {split}"
                    )
        both = set(labels(splits, "train")) & {entry.pid for entry in splits["test"]}
        if both:
            yield f"identities to train on and to test on: {named(both)}; they must differ"

    def listing_problems(self, splits: dict[str, list[Entry]]) -> Iterator[str]:
        """Splits without images, and images that are listed twice."""
        for split, entries in splits.items():
            if not entries:
                yield f"no image for the split {split!r} of {self.name}: it needs {self.LAYOUT}"
            paths = collections.Counter(entry.path for entry in entries)
            twice = [path for path, count in paths.items() if count > 1]
            if twice:
                yield f"{split} lists {named(twice)} more than once: list each image once"

    def _split_generators(self, dl_manager):
        root = Path(dl_manager.manual_dir)
        splits = self.entries(root)
        for problem in self.problems(splits):
            raise UserError(f"{root}: {problem}")
        self._memory.write_text(_digest(splits))  # in the folder that appears when complete
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

    def require(self, data) -> None:
        """Checks that it is prepared, from the folder of the config, or can be.

        Raises:
          UserError: there is no folder to prepare it from; it was prepared from other images.
        """
        there = Path(data.source or "?").is_dir()
        if self.is_prepared():
            if there and self._memory.read_text() != _digest(self.entries(Path(data.source))):
                raise UserError(
                    f"{self.data_dir} was prepared from other images than {data.source} holds: "
                    "remove that folder to convert these, or leave config.data.source empty"
                )
        elif not there:
            raise UserError(
                f"{self.name} is not in {data.dir} yet and config.data.source={data.source!r} is "
                "no folder: give --config.data.source=DIR (scripts: --source=DIR), the folder that "
                f"holds {self.LAYOUT}"
            )

    @property
    def _memory(self):
        """The file that says which images it was prepared from."""
        return Path(self.data_dir) / "source.sha1"


def _digest(splits):
    """A hash over the names of all images by split."""
    paths = sorted((split, e.path) for split, entries in splits.items() for e in entries)
    return hashlib.sha1(repr(paths).encode()).hexdigest()


def named(things) -> str:
    """The first few of `things`, in order, for a message."""
    shown = ", ".join(map(str, sorted(things)[:5]))
    return shown + (f" and {len(things) - 5} more" if len(things) > 5 else "")


def labels(splits: dict[str, list], split: str) -> dict[int, int]:
    """Label by pid: positions in ascending order among train and val together; {} for test."""
    if split == "test":
        return {}
    pids = {entry.pid for name, own in splits.items() if name != "test" for entry in own}
    return {pid: label for label, pid in enumerate(sorted(pids))}
