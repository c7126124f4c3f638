"""RegDB (Nguyen et al., Sensors 2017): visible and thermal images of 412 people."""

import dataclasses
import io
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from vireid_jax.data.builder import Builder
from vireid_jax.types import Modality, UserError

TRIALS = range(1, 11)
_WORDS = {Modality.VISIBLE: "visible", Modality.INFRARED: "thermal"}


@dataclasses.dataclass(eq=False)
class RegdbConfig(tfds.core.BuilderConfig):
    """One of the ten published splits; `trial` is 1 to 10."""

    trial: int = 1


class Regdb(Builder):
    """412 identities with 10 visible and 10 thermal images each; 206 train and 206 test a trial.

    Source: `idx/{train,test}_{visible,thermal}_{1..10}.txt` and the images they name, in a folder
    obtained from the authors (for research; see their terms). A line is "PATH LABEL"; the identity
    is the folder that holds the image. Protocol: every image of one modality queries all of the
    other, both ways; each of the ten trials has its own split, hence its own model.

    Features: those of `Builder`; camid is 1 for visible, 2 for thermal, `path` is under the source.
    """

    BUILDER_CONFIGS: ClassVar = [RegdbConfig(name=f"trial{t}", trial=t) for t in TRIALS]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Name RegDB's folder in config.data.source."

    def _split_generators(self, dl_manager):
        root = Path(dl_manager.manual_dir)
        trial = self.builder_config.trial
        return {
            split: self._generate_examples(
                root,
                {m: _read_index(root, f"{split}_{word}_{trial}") for m, word in _WORDS.items()},
            )
            for split in ("train", "test")
        }

    def _generate_examples(self, root, index):
        for modality, paths in index.items():
            for path in paths:
                yield (
                    path,
                    {
                        "image": _png(root / path),
                        "pid": int(Path(path).parent.name),
                        "camid": modality + 1,
                        "modality": int(modality),
                        "path": path,
                    },
                )


def builder(data) -> Regdb:
    """The builder of a config's `data` section: `trial`, `source` and `dir`.

    Raises:
      UserError: no such trial; not prepared yet and no folder to prepare it from.
    """
    if data.trial not in TRIALS:
        raise UserError(f"config.data.trial={data.trial}: RegDB's trials are 1 to 10")
    regdb = Regdb(config=f"trial{data.trial}", data_dir=data.dir)
    if not regdb.is_prepared() and not Path(data.source or "?").is_dir():
        raise UserError(
            f"RegDB is not in {data.dir} yet and config.data.source={data.source!r} is no folder: "
            "give --config.data.source=DIR, the folder that holds Visible/, Thermal/ and idx/"
        )
    return regdb


def _read_index(root, name):
    """Image paths of an index file, all of which exist."""
    file = root / "idx" / f"{name}.txt"
    if not file.is_file():
        raise UserError(f"{file} is missing: config.data.source must hold RegDB's idx/ folder")
    paths = [line.rsplit(" ", 1)[0] for line in file.read_text().splitlines() if line.strip()]
    for path in paths:
        if not (root / path).is_file():
            raise UserError(f"{file} names {path}, which is not in {root}: copy the image there")
    return paths


def _png(file):
    try:
        with Image.open(file) as image:
            png = io.BytesIO()
            image.convert("RGB").save(png, "png", compress_level=1)
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{file} is no readable image ({error}): replace it") from error
    png.seek(0)
    return png
