"""What is wrong with a folder of images, before anything is converted."""

import collections
import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vireid_jax.data import files
from vireid_jax.data.builder import Entry, ManualBuilder
from vireid_jax.types import Modality, UserError

_SHOWN = 5  # identities of a kind that a note names


@dataclasses.dataclass
class Report:
    """What `inspect` found.

    Attributes:
      table: counts as text.
      notes: what is unusual, and can be worked with.
      problems: what has to be put right first.
    """

    table: str
    notes: list[str]
    problems: list[str]

    def __str__(self):
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([self.table, *notes, *(f"wrong: {p}" for p in self.problems)])


def inspect(builder: ManualBuilder, root: Path, images: int) -> Report:
    """Counts and reads every image below `root`.

    Args:
      builder: of the data set.
      root: its folder.
      images: K, how many images of an identity and modality a batch shows.

    Raises:
      UserError: an index file, or an image that one names, is missing: there is nothing to count.
    """
    splits = builder.entries(root)
    notes, problems = [], []
    for split, entries in splits.items():
        if not entries:
            problems.append(f"the split {split!r} has no image: the folder needs {builder.LAYOUT}")
        for modality, found in _counts(entries).items():
            expected = builder.EXPECTED.get((split, modality), found)
            if found != expected:
                name = modality.name.lower()
                notes.append(f"{split} has {found} {name} images, the published set {expected}")
        notes += _short_identities(split, entries, images)
        if split != "test":
            problems += _one_modality(split, entries)
    every = [entry for entries in splits.values() for entry in entries]
    seen = {(entry.modality, entry.camid) for entry in every}
    for modality, camids in builder.CAMERAS.items():
        for camid in camids:
            if (modality, camid) not in seen:
                notes.append(f"camera {camid} has no {modality.name.lower()} image")
    for path in tqdm(dict.fromkeys(e.path for e in every), "reading", unit="img", leave=False):
        try:
            files.encoded(root, path)
        except UserError as error:
            problems.append(str(error))
    return Report(_table(builder, splits), notes, problems)


def _counts(entries) -> dict[Modality, int]:
    return {m: sum(entry.modality == m for entry in entries) for m in Modality}


def _by_identity(entries: list[Entry]) -> dict[int, np.ndarray]:
    """Images of both modalities by pid."""
    counts = collections.defaultdict(lambda: np.zeros(len(Modality), int))
    for entry in entries:
        counts[entry.pid][entry.modality] += 1
    return counts


def _short_identities(split, entries, images):
    counts = _by_identity(entries)
    short = [pid for pid, n in counts.items() if n[n > 0].min() < images]
    if short and split != "test":
        yield (
            f"{len(short)} identities of {split} have fewer than K = {images} images of a modality "
            f"and show them more than once in a batch: {_named(short)}"
        )


def _one_modality(split, entries):
    counts = _by_identity(entries)
    for modality in Modality:
        lacking = [pid for pid, n in counts.items() if not n[modality]]
        if lacking:
            yield (
                f"{len(lacking)} identities of {split} have no {modality.name.lower()} image: add "
                f"one or take them out of {split}: {_named(lacking)}"
            )


def _named(pids):
    shown = ", ".join(map(str, sorted(pids)[:_SHOWN]))
    return shown + (", ..." if len(pids) > _SHOWN else "")


def _table(builder, splits):
    row = "{:<8}{:<10}{:>7}{:>12}{:>9}{:>11}".format
    lines = [row("split", "modality", "camera", "identities", "images", "published")]
    for split, entries in splits.items():
        for modality in Modality:
            own = [entry for entry in entries if entry.modality == modality]
            whole = builder.EXPECTED.get((split, modality), "")
            lines.append(row(split, modality.name.lower(), "all", _people(own), len(own), whole))
            for camid in sorted({entry.camid for entry in own}):
                group = [entry for entry in own if entry.camid == camid]
                lines.append(row("", "", camid, _people(group), len(group), ""))
    return "\n".join(lines)


def _people(entries):
    return len({entry.pid for entry in entries})
