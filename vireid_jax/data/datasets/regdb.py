"""RegDB (Nguyen et al., Sensors 2017): visible and thermal images of 412 people."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from vireid_jax.data import index
from vireid_jax.data.builder import Entry, ManualBuilder
from vireid_jax.types import Modality, UserError

TRIALS = range(1, 11)
_WORDS = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}


@dataclasses.dataclass(eq=False)
class RegdbConfig(tfds.core.BuilderConfig):
    """One of the ten published splits; `trial` is 1 to 10."""

    trial: int = 1


class Regdb(ManualBuilder):
    """412 identities with 10 visible and 10 thermal images each; 206 train and 206 test a trial.

    Source: `idx/{train,test}_{visible,thermal}_{1..10}.txt` and the images they name, in a folder
    obtained from the authors (for research; see their terms). A line is "PATH LABEL"; the identity
    is the folder that holds the image. Protocol: every image of one modality queries all of the
    other, both ways; each of the ten trials has its own split, hence its own model.

    Features: those of `Builder`; camid is 1 for visible, 2 for thermal, `path` is under the source.
    """

    BUILDER_CONFIGS: ClassVar = [RegdbConfig(name=f"trial{t}", trial=t) for t in TRIALS]
    LAYOUT = "Visible/, Thermal/ and idx/"
    IDENTITIES: ClassVar = {"train": 206, "test": 206}
    IMAGES: ClassVar = {(split, m): 2060 for split in IDENTITIES for m in Modality}

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """See the class."""
        return {
            split: [
                Entry(path, index.pid_of_folder(root, path), modality + 1, modality)
                for modality, word in _WORDS.items()
                for path, _ in index.lines(
                    root, f"idx/{split}_{word}_{self.builder_config.trial}.txt"
                )
            ]
            for split in ("train", "test")
        }


def builder(data) -> Regdb:
    """The builder of a config's `data` section: `trial` and `dir`.

    Raises:
      UserError: no such trial.
    """
    if data.trial not in TRIALS:
        raise UserError(f"config.data.trial={data.trial}: RegDB's trials are 1 to 10")
    return Regdb(config=f"trial{data.trial}", data_dir=data.dir)
