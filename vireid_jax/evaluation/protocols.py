"""Query and gallery of each data set, as data, and the results table they lead to.

A protocol family is a function from the test `ImageSet` to its protocols. Its name is the
config's `data.protocol`.
"""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from vireid_jax.evaluation import ranking
from vireid_jax.types import ImageSet, Modality, UserError

INDOOR_CAMERAS = (1, 2)  # SYSU-MM01
SAME_PLACE = ((3, 2),)  # SYSU-MM01: (query camid, gallery camid)


@dataclasses.dataclass(frozen=True)
class Trial:
    """Rows of an `ImageSet`: `query` int [Q], `gallery` int [G]."""

    query: np.ndarray
    gallery: np.ndarray


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One line of a results table.

    Attributes:
      name: as it stands in `results.json`.
      trials: results are the mean and the standard deviation over these.
      cmc_on: "identities" or "images", see `ranking.rank`.
      excluded: (query camid, gallery camid) pairs that are never compared.
    """

    name: str
    trials: tuple[Trial, ...]
    cmc_on: str = "images"
    excluded: tuple[tuple[int, int], ...] = ()


def sysu_protocols(images: ImageSet, seeds: Iterable[int] = range(10)) -> list[Protocol]:
    """SYSU-MM01, single-shot: infrared queries, visible gallery, one trial per seed.

    "all-seeded" searches every visible camera; "indoor-seeded" cameras 1 and 2, and is left out
    where no other visible camera would make it differ. "seeded" names how a trial picks its
    gallery, see `draw_gallery`: the rule of the published codes, not the index file that comes
    with SYSU-MM01.

    Raises:
      UserError: a modality has no image.
    """
    query = _rows(images, Modality.INFRARED, "query")
    visible = _rows(images, Modality.VISIBLE, "gallery")
    cameras = {"all": set(images.camid[visible].tolist())}
    indoor = cameras["all"].intersection(INDOOR_CAMERAS)
    if indoor and indoor != cameras["all"]:
        cameras["indoor"] = indoor
    return [
        Protocol(
            f"{search}-seeded",
            tuple(Trial(query, draw_gallery(images, visible, cameras[search], s)) for s in seeds),
            cmc_on="identities",
            excluded=SAME_PLACE,
        )
        for search in cameras
    ]


def regdb_protocols(images: ImageSet) -> list[Protocol]:
    """RegDB: all visible against all thermal images and the reverse, one trial each.

    The data set's ten trials are ten splits, hence ten models; each model is tested on its own.

    Raises:
      UserError: a modality has no image.
    """
    visible = _rows(images, Modality.VISIBLE, "query")
    thermal = _rows(images, Modality.INFRARED, "gallery")
    return [
        Protocol("visible-thermal", (Trial(visible, thermal),)),
        Protocol("thermal-visible", (Trial(thermal, visible),)),
    ]


FAMILIES = {"sysu": sysu_protocols, "regdb": regdb_protocols}


def protocols_for(family: str, images: ImageSet) -> list[Protocol]:
    """The protocols of a family ("sysu", "regdb") on the images of one split.

    Raises:
      UserError: unknown family, or a modality without images.
    """
    if family not in FAMILIES:
        raise UserError(f"data.protocol={family!r} is unknown; known: {', '.join(FAMILIES)}")
    return FAMILIES[family](images)


def draw_gallery(images: ImageSet, rows, cameras, seed: int) -> np.ndarray:
    """Draws one image per (pid, camid) as the published SYSU-MM01 codes do.

    The generator is Python's, freshly seeded; identities ascend, within them cameras; each takes
    one `choice` from its file names in sorted order.

    Args:
      images: the split.
      rows: the rows to draw from.
      cameras: the camids to draw from.
      seed: of the trial.

    Returns:
      int [G], rows of `images` in the order drawn.
    """
    shots = defaultdict(list)
    for row in sorted(rows, key=lambda row: images.path[row]):
        if images.camid[row] in cameras:
            shots[int(images.pid[row]), int(images.camid[row])].append(row)
    draw = random.Random(seed)
    return np.array([draw.choice(shots[pid_camid]) for pid_camid in sorted(shots)])


def evaluate(
    features: dict[str, np.ndarray], images: ImageSet, protocols: Iterable[Protocol]
) -> dict[str, dict]:
    """Measures every feature under every protocol; similarity is the dot product.

    Args:
      features: name -> float32 [n, F], row i belongs to row i of `images`.
      images: the split that the protocols were made from.
      protocols: see `protocols_for`.

    Returns:
      {protocol: {feature: {"rank1": {"mean", "std"}, ..., "mAP", "mINP"}, "trials": count}},
      percent, the population standard deviation over trials.

    Raises:
      UserError: a trial in which no query has a match; features that are not finite.
    """
    results = {}
    for protocol in protocols:
        results[protocol.name] = {
            name: _over_trials(feature, images, protocol) for name, feature in features.items()
        }
        results[protocol.name]["trials"] = len(protocol.trials)
    return results


def _over_trials(feature, images, protocol):
    # One product serves all trials: they share their queries and many gallery images.
    query, query_at = _union([trial.query for trial in protocol.trials])
    gallery, gallery_at = _union([trial.gallery for trial in protocol.trials])
    similarity = feature[query] @ feature[gallery].T
    percent = []
    for trial, q, g in zip(protocol.trials, query_at, gallery_at, strict=True):
        ranked = ranking.rank(
            similarity[np.ix_(q, g)],
            images.pid[trial.query],
            images.pid[trial.gallery],
            valid=ranking.camera_mask(
                images.camid[trial.query], images.camid[trial.gallery], protocol.excluded
            ),
            cmc_on=protocol.cmc_on,
        )
        if ranked.skipped == len(trial.query):
            raise UserError(
                f"protocol {protocol.name!r}: no query has an image of its identity in the "
                "gallery; check that both modalities of the split hold the same identities"
            )
        percent.append(ranked.percent())
    return {
        figure: {
            "mean": float(np.mean([p[figure] for p in percent])),
            "std": float(np.std([p[figure] for p in percent])),
        }
        for figure in percent[0]
    }


def _union(rows):
    """The distinct rows of several lists, and where each list's rows lie among them."""
    union, at = np.unique(np.concatenate(rows), return_inverse=True)
    return union, np.split(at, np.cumsum([len(r) for r in rows])[:-1])


def _rows(images, modality, role):
    rows = np.flatnonzero(images.modality == modality)
    if not len(rows):
        raise UserError(
            f"the split to evaluate has no {modality.name.lower()} image, so its {role} is empty; "
            "check data.dir and data.protocol"
        )
    return rows
