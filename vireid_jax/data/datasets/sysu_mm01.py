"""SYSU-MM01 (Wu et al., ICCV 2017): 491 people under four visible and two infrared cameras."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from vireid_jax.data import files, index
from vireid_jax.data.builder import Entry, ManualBuilder
from vireid_jax.types import Modality, UserError

_CAMERAS = {Modality.VISIBLE: (1, 2, 4, 5), Modality.INFRARED: (3, 6)}
UNKNOWN_CAMERA = 0  # of images from a cache, which does not say
CACHES = {m: f"train_{word}_resized" for m, word in zip(Modality, ("rgb", "ir"), strict=True)}


class SysuMm01(ManualBuilder):
    """296 identities to train on, 99 to validate on, 96 to test on.

    | split | identities | visible | infrared |
    |---|---|---|---|
    | train | 296 | 20,284 | 9,929 |
    | val | 99 | 1,974 (cameras 4, 5) | 1,980 (camera 3) |
    | test | 96 | - | 3,803 |

    The field trains on train and val together (395 identities, `config.data.train_split`).

    Source: `cam{1..6}/{id:04}/{number:04}.jpg` and `exp/{train,val,test}_id.txt` (one line of
    identities with commas), obtained from the authors with a signed form, for research. Where the
    cameras' folders hold nobody to train on, `train_{rgb,ir}_resized_{img,label}.npy` are read
    instead, the caches that most public training code makes; their images have camid 0, and their
    labels count the identities of train and val in ascending order.

    Protocol: infrared queries search a visible gallery, see `protocols.sysu_protocols`.

    Features: those of `Builder`; `path` is under the source, `FILE.npy#ROW` from a cache.
    """

    LAYOUT = "cam1/ to cam6/ and exp/"
    CAMERAS: ClassVar = {
        (split, modality): camids
        for split in ("train", "test")
        for modality, camids in _CAMERAS.items()
    }
    IDENTITIES: ClassVar = {"train": 296, "val": 99, "test": 96}
    IMAGES: ClassVar = {
        ("train", Modality.VISIBLE): 20284,
        ("train", Modality.INFRARED): 9929,
        ("val", Modality.VISIBLE): 1974,
        ("val", Modality.INFRARED): 1980,
        ("test", Modality.INFRARED): 3803,
    }

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """See the class."""
        pids = {split: index.ids(root, f"exp/{split}_id.txt") for split in ("train", "val", "test")}
        splits = {split: _photographed(root, own) for split, own in pids.items()}
        if not splits["train"] and not splits["val"]:
            cached = _cached(root, sorted(pids["train"] + pids["val"]))
            for split in ("train", "val"):
                own = set(pids[split])
                splits[split] = [entry for entry in cached if entry.pid in own]
        return splits

    def in_cache_order(self, splits: dict[str, list[Entry]]) -> list[Entry]:
        """See the class: by identity, train and val in one list; images from a cache by row."""
        both = splits["train"] + splits["val"]
        if any(files.ROW in entry.path for entry in both):
            return sorted(both, key=lambda entry: int(entry.path.split("#")[1]))
        return sorted(both, key=lambda entry: entry.pid)


def builder(data) -> SysuMm01:
    """The builder of a config's `data` section: `dir`."""
    return SysuMm01(data_dir=data.dir)


def _photographed(root, pids):
    """By identity, within it by camera, within it by file name."""
    return [
        Entry(f"cam{camid}/{pid:04}/{name}", pid, camid, modality)
        for pid in pids
        for modality, camids in _CAMERAS.items()
        for camid in camids
        for name in index.images(root / f"cam{camid}" / f"{pid:04}")
    ]


def _cached(root, pids):
    entries = []
    for modality, stem in CACHES.items():
        images, labels = root / f"{stem}_img.npy", root / f"{stem}_label.npy"
        if not (images.is_file() and labels.is_file()):
            continue
        pixels, label = files.array(images), files.array(labels)
        if (
            pixels.dtype != np.uint8
            or pixels.ndim != 4
            or pixels.shape[3] != 3
            or not np.issubdtype(label.dtype, np.integer)
            or label.shape != pixels.shape[:1]
        ):
            raise UserError(
                f"{images} is {pixels.dtype} {pixels.shape}, its labels {label.dtype} "
                f"{label.shape}: make both anew, uint8 [n, H, W, 3] and integers [n]"
            )
        if label.size and not 0 <= label.min() <= label.max() < len(pids):
            raise UserError(
                f"{labels} has labels from {label.min()} to {label.max()}, but exp/ names "
                f"{len(pids)} identities to train on: the cache is of another list"
            )
        entries += [
            Entry(f"{images.name}#{row}", pids[int(x)], UNKNOWN_CAMERA, modality)
            for row, x in enumerate(label)
        ]
    return entries
