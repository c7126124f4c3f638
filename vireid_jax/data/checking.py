"""What is wrong with a folder of images, before anything is converted."""

import collections
import dataclasses
from pathlib import Path

from tqdm import tqdm

from vireid_jax.data import files
from vireid_jax.data.builder import ManualBuilder, named
from vireid_jax.types import Modality, UserError


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
    notes, problems = [], list(builder.problems(splits))
    for split, entries in splits.items():
        people = _people(entries)
        if people != builder.IDENTITIES.get(split, people):
            published = builder.IDENTITIES[split]
            notes.append(f"{split} has {people} identities, the published set {published}")
        for modality in Modality:
            own = [entry for entry in entries if entry.modality == modality]
            name, published = modality.name.lower(), builder.IMAGES.get((split, modality))
            if published not in (None, len(own)):
                notes.append(f"{split} has {len(own)} {name} images, the published set {published}")
            expected = set(builder.CAMERAS.get((split, modality), ()))
            if absent := expected - {entry.camid for entry in own}:
                notes.append(f"{split} has no {name} image of the cameras {named(absent)}")
        notes += _unusual_identities(split, entries, images)
    every = dict.fromkeys(entry.path for entries in splits.values() for entry in entries)
    for path in tqdm(every, "reading", unit="img", leave=False):
        try:
            files.encoded(root, path)
        except UserError as error:
            problems.append(str(error))
    return Report(_table(builder, splits), notes, problems)


def _unusual_identities(split, entries, images):
    counts = collections.defaultdict(lambda: [0] * len(Modality))
    for entry in entries:
        if entry.pid >= 0:  # LIP's images have no identities
            counts[entry.pid][entry.modality] += 1
    if split == "test":
        for modality in Modality:
            if lacking := [pid for pid, own in counts.items() if not own[modality]]:
                yield f"identities of test without {modality.name.lower()} images: {named(lacking)}"
    elif short := [pid for pid, own in counts.items() if min(own) < images]:
        yield (
            f"{len(short)} identities of {split} have fewer than K = {images} images of a modality "
            f"and show them more than once in a batch: {named(short)}"
        )


def _table(builder, splits):
    row = "{:<8}{:<10}{:>7}{:>12}{:>9}{:>11}".format
    lines = [row("split", "modality", "camera", "identities", "images", "published")]
    for split, entries in splits.items():
        for modality in Modality:
            own = [entry for entry in entries if entry.modality == modality]
            whole = builder.IMAGES.get((split, modality), "")
            lines.append(row(split, modality.name.lower(), "all", _people(own), len(own), whole))
            for camid in sorted({entry.camid for entry in own}):
                group = [entry for entry in own if entry.camid == camid]
                lines.append(row("", "", camid, _people(group), len(group), ""))
    return "\n".join(lines)


def _people(entries):
    return len({entry.pid for entry in entries})
