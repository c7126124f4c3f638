"""Images in any folder, to search with or in: which there are, and what their names say."""

import re
from pathlib import Path

from vireid_jax.data import index
from vireid_jax.data.builder import Entry
from vireid_jax.data.datasets import folder
from vireid_jax.types import Modality, UserError

UNKNOWN = -1
"""The pid of an image whose name says none."""
_PID = re.compile(r"(\d+)_c(?:am)?\d+(?:_|$)", re.I)  # 12_c3_0001.jpg


def find(source: str | Path, modality: Modality) -> tuple[Path, list[Entry]]:
    """The images at `source`, a file or a folder with folders in it, in the order of their paths.

    Where a folder has one named after the modality (`visible`, `infrared`), as those that the data
    set `folder` reads, only what is below that is taken. The pid is the name of the image's folder
    where that is a number, else what its own name begins with (`12_c3_0001.jpg`), else `UNKNOWN`;
    the camid is that of the data set `folder`.

    Returns:
      The root, and the images below it.

    Raises:
      UserError: nothing there, or no image.
    """
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source} does not exist: give an image or a folder of images")
    root = source.parent if source.is_file() else source
    own = source / modality.name.lower()
    files = [source] if source.is_file() else (own if own.is_dir() else source).rglob("*")
    paths = sorted(file.relative_to(root) for file in files if _is_image(file))
    if not paths:
        raise UserError(f"{source} has no image: give {', '.join(folder.SUFFIXES)} files")
    table = folder.camera_table(root)
    return root, [
        Entry(
            path.as_posix(),
            _pid(root / path),
            folder.camid(path.as_posix(), table, modality),
            modality,
        )
        for path in paths
    ]


def _is_image(file):
    shown = not file.name.startswith(".") and file.suffix.lower() in folder.SUFFIXES
    return shown and file.is_file()


def _pid(file):
    named = _PID.match(file.stem)
    word = file.parent.name
    word = word if word.isdecimal() else named and named[1]
    return index.number(word, f"{file} is of") if word else UNKNOWN
