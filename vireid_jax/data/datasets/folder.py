"""One's own images: visible/PID/* and infrared/PID/*."""

import csv
import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from vireid_jax.data import index
from vireid_jax.data.builder import Entry, ManualBuilder, named
from vireid_jax.types import Modality, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_CAMERA = re.compile(r"(?:^|_)c(?:am)?(\d+)(?=_|$)", re.I)  # 12_c3_0001.jpg, cam3_7.png, cam3/7.png
_LISTS = {"train": "train_id.txt", "test": "test_id.txt"}
_CAMERA_TABLE = "camid.csv"


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """How a folder without lists is split.

    Attributes:
      test_fraction: of the identities, drawn with `split_seed`.
    """

    test_fraction: float = 0.5
    split_seed: int = 0


class Folder(ManualBuilder):
    """Images of people that their user has, split into train and test by identity.

    Source: `visible/PID/*` and `infrared/PID/*`, .jpg, .png, .bmp or .tif; PID is a number. The
    camera is in the name of the file or of a folder (`_c3_`, `cam3`), or in `camid.csv` with lines
    "PATH,CAMID", or else 1 for visible and 2 for infrared. `train_id.txt` and `test_id.txt`, one
    line of identities with commas each, split the identities; without them, a share is drawn at
    random.

    Features: those of `Builder`; `path` is under the source.
    """

    LAYOUT = "visible/PID/* and infrared/PID/*"

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """See the class."""
        table = camera_table(root)
        found = [
            Entry(path, pid, camid(path, table, modality), modality)
            for modality in Modality
            for pid, path in _images(root, modality.name.lower())
        ]
        pids = _split(root, {entry.pid for entry in found}, self.builder_config)
        return {split: [e for e in found if e.pid in own] for split, own in pids.items()}


def builder(data) -> Folder:
    """The builder of a config's `data` section: `source`, `test_fraction`, `split_seed`, `dir`.

    Prepared data belong to one state of one folder: a file more or less makes new ones.

    Raises:
      UserError: no such folder.
    """
    root = Path(data.source or "?")
    if not root.is_dir():
        raise UserError(f"config.data.source={data.source!r} is no folder: give one's images")
    state = hashlib.sha1(f"{data.test_fraction}|{data.split_seed}|{root.resolve()}".encode())
    content = [f for m in Modality for f in (root / m.name.lower()).rglob("*")]
    content += [root / name for name in (*_LISTS.values(), _CAMERA_TABLE)]
    for file in sorted(f for f in content if f.is_file()):
        status = file.stat()
        state.update(f"{file.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}".encode())
    config = FolderConfig(
        name=state.hexdigest()[:12], test_fraction=data.test_fraction, split_seed=data.split_seed
    )
    return Folder(config=config, data_dir=data.dir)


def _images(root, modality):
    folder = root / modality
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it should hold a folder of images for each identity")
    for own in sorted(folder.iterdir()):
        if own.is_dir():
            pid = index.number(own.name, f"{folder} holds")
            for name in index.images(own):
                if name.lower().endswith(SUFFIXES):
                    yield pid, f"{modality}/{own.name}/{name}"


def camera_table(root: Path) -> dict[str, int]:
    """The camera numbers of `camid.csv` by path, where there is one.

    Raises:
      UserError: a line of another form, or of no image.
    """
    file = root / _CAMERA_TABLE
    if not file.is_file():
        return {}
    table = {}
    for row in filter(None, csv.reader(index.text(file).splitlines())):
        if len(row) != 2 or not (root / row[0].strip()).is_file():
            raise UserError(f"{file}: {','.join(row)!r} is not 'PATH,CAMID' of an image in {root}")
        table[row[0].strip()] = index.number(row[1].strip(), f"{file} holds")
    return table


def camid(path: str, table: dict[str, int], modality: Modality) -> int:
    """The camera of an image: by the table, else by its name or a folder's, else by modality."""
    if path in table:
        return table[path]
    named = _CAMERA.findall("_".join(Path(path).with_suffix("").parts))
    return int(named[-1]) if named else modality + 1


def _split(root, pids, config):
    if any((root / name).is_file() for name in _LISTS.values()):
        lists = {split: set(index.ids(root, name)) for split, name in _LISTS.items()}
        if unknown := (lists["train"] | lists["test"]) - pids:
            raise UserError(f"{root}: identities of the lists without an image: {named(unknown)}")
        return lists
    if not 0 < config.test_fraction < 1:
        raise UserError(f"config.data.test_fraction={config.test_fraction} is not between 0 and 1")
    drawn = np.random.default_rng(config.split_seed).permutation(sorted(pids))
    count = round(config.test_fraction * len(drawn))
    return {"train": set(drawn[count:].tolist()), "test": set(drawn[:count].tolist())}
