"""Features on disk by what they were computed from, each computed once."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

KEY = 20
"""Bytes of a key: those of a SHA-1."""


class FeatureStore:
    """Features of one network; rows are added and never change.

    `keys` in the folder has `KEY` bytes a row, `features` a row of float32 [width]. What an
    interrupted call left incomplete is cut off by the next.
    """

    def __init__(self, folder: Path, width: int):
        """Opens `folder`, which need not exist."""
        self._folder, self._width = folder, width
        self._keys, self._features = folder / "keys", folder / "features"

    def rows(self, keys: list[bytes], compute: Callable, batch: int) -> np.ndarray:
        """The rows of `keys`, after those that are not there were computed; others wait meanwhile.

        Args:
          keys: of images, some of them perhaps alike.
          compute: (positions in `keys`, `batch` or fewer) -> float32 [positions, width].
          batch: how many at a time; each is kept as soon as it is done.

        Returns:
          int64 [n], for `read`.
        """
        with self._alone():
            row = {key: i for i, key in enumerate(self._whole())}
            lacking = list({key: i for i, key in enumerate(keys) if key not in row}.values())
            progress = tqdm(total=len(lacking), desc="embedding", unit="img", leave=False)
            for start in range(0, len(lacking), batch):
                own = lacking[start : start + batch]
                features = np.asarray(compute(own), np.float32)
                with self._features.open("ab") as file:
                    file.write(features.tobytes())
                with self._keys.open("ab") as file:  # last: a row counts once it has its key
                    file.write(b"".join(keys[i] for i in own))
                row |= {keys[i]: len(row) + at for at, i in enumerate(own)}
                progress.update(len(own))
            progress.close()
        return np.array([row[key] for key in keys], np.int64)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """float32 [rows, width]; the file is mapped for this call only, see `nearest.nearest`."""
        shape = int(rows.max()) + 1, self._width  # more may be added meanwhile
        return np.memmap(self._features, np.float32, "r", shape=shape)[rows]

    @contextlib.contextmanager
    def _alone(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _whole(self):
        """All keys, after both files were cut to the rows that both have."""
        sizes = (self._keys, KEY), (self._features, np.float32().itemsize * self._width)
        for file, _ in sizes:
            file.touch()
        count = min(file.stat().st_size // size for file, size in sizes)
        for file, size in sizes:
            os.truncate(file, count * size)
        keys = self._keys.read_bytes()
        return [keys[KEY * i : KEY * (i + 1)] for i in range(count)]
