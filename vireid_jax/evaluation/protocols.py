"""Query and gallery of each data set, as data, and the results table they lead to.

A protocol family is a function from the test `ImageSet` to its protocols. Its name is the
config's `data.protocol`.
"""

import dataclasses
import functools
import inspect
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io

from vireid_jax import registry
from vireid_jax.evaluation import ranking, re_ranking
from vireid_jax.types import ImageSet, Modality, UserError

INDOOR_CAMERAS = (1, 2)  # SYSU-MM01
SAME_PLACE = ((3, 2),)  # SYSU-MM01: (query camid, gallery camid)
TRIALS = range(10)
GALLERIES = {"seeded": "drawn by the trial's number", "official": "from the set's index file"}
Official = dict[int, list[np.ndarray]]


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
      same_camera: whether images of one identity by cameras of one number are compared.
    """

    name: str
    trials: tuple[Trial, ...]
    cmc_on: str = "images"
    excluded: tuple[tuple[int, int], ...] = ()
    same_camera: bool = True

    def valid(self, images: ImageSet, trial: Trial) -> np.ndarray | None:
        """bool [Q, G], which pairs are compared; None: all."""
        camids, pids = ((x[trial.query], x[trial.gallery]) for x in (images.camid, images.pid))
        if not self.same_camera:
            return ~np.equal.outer(*camids) | ~np.equal.outer(*pids)
        return ranking.camera_mask(*camids, self.excluded)


def sysu_protocols(
    images: ImageSet, shots=(1,), galleries=("seeded",), official: Official | None = None
) -> list[Protocol]:
    """SYSU-MM01: infrared queries, visible gallery, ten trials.

    "all-..." searches every visible camera; "indoor-..." cameras 1 and 2, and is left out where no
    other visible camera would make it differ. "...-seeded" draws each trial's gallery as the
    published codes do, "...-official" takes it from the index file that comes with the data set;
    the two agree in few images. "...-multi10" has ten images of each identity and camera.

    Args:
      images: of the split.
      shots: images per identity and camera, one protocol for each.
      galleries: of `GALLERIES`.
      official: for the latter, see `official_galleries`.

    Raises:
      UserError: a modality has no image; images that `official` lacks.
    """
    query = _rows(images, Modality.INFRARED, "query")
    visible = _rows(images, Modality.VISIBLE, "gallery")
    cameras = {"all": set(images.camid[visible].tolist())}
    indoor = cameras["all"].intersection(INDOOR_CAMERAS)
    if indoor and indoor != cameras["all"]:
        cameras["indoor"] = indoor

    draw = {"seeded": draw_gallery, "official": functools.partial(take_gallery, official)}
    found = []
    for kind, count, search in itertools.product(galleries, shots, cameras):
        rows = visible[np.isin(images.camid[visible], list(cameras[search]))]
        multi = f"-multi{count}" if count > 1 else ""
        trials = tuple(Trial(query, draw[kind](images, rows, count, t)) for t in TRIALS)
        found.append(Protocol(f"{search}-{kind}{multi}", trials, "identities", SAME_PLACE))
    return found


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


def llcm_protocols(images: ImageSet) -> list[Protocol]:
    """LLCM: both directions, ten trials; a trial's sampled side has one image per pid and camera.

    A query is not compared with images of its own identity and camera number (a place's visible
    and infrared cameras share theirs); CMC counts identities. Two readings of the search for
    infrared images circulate: "visible-infrared-declared" samples the infrared gallery;
    "visible-infrared-transposed", the published code's, samples the visible queries and searches
    all infrared images.

    Raises:
      UserError: a modality has no image.
    """
    visible = _rows(images, Modality.VISIBLE, "query")
    infrared = _rows(images, Modality.INFRARED, "gallery")
    sampled_visible = [draw_gallery(images, visible, 1, t) for t in TRIALS]
    sampled_infrared = [draw_gallery(images, infrared, 1, t) for t in TRIALS]
    trials = {
        "infrared-visible": [Trial(infrared, g) for g in sampled_visible],
        "visible-infrared-declared": [Trial(visible, g) for g in sampled_infrared],
        "visible-infrared-transposed": [Trial(q, infrared) for q in sampled_visible],
    }
    return [
        Protocol(name, tuple(own), "identities", same_camera=False) for name, own in trials.items()
    ]


FAMILIES = {"sysu": sysu_protocols, "regdb": regdb_protocols, "llcm": llcm_protocols}


def protocols_for(family: str, images: ImageSet, **options) -> list[Protocol]:
    """The protocols of a family ("sysu", "regdb", "llcm") on the images of one split.

    Args:
      family: a key of `FAMILIES`.
      images: of the split.
      options: of the family's function; those that it does not have are ignored.

    Raises:
      UserError: unknown family, or a modality without images.
    """
    function = registry.choose("config.data.protocol", family, FAMILIES)
    known = inspect.signature(function).parameters
    return function(images, **{key: value for key, value in options.items() if key in known})


def draw_gallery(images: ImageSet, rows, count: int, seed: int) -> np.ndarray:
    """Draws `count` images per (pid, camid) as the published SYSU-MM01 codes do.

    The generator is Python's, freshly seeded; identities ascend, within them cameras; each takes
    one `choice` from its file names in sorted order, or `sample` where several are asked for.

    Args:
      images: the split.
      rows: the rows to draw from.
      count: per identity and camera; all, where there are fewer.
      seed: of the trial.

    Returns:
      int [G], rows of `images` in the order drawn.
    """
    draw, shots = random.Random(seed), _shots(images, rows)
    drawn = []
    for key in sorted(shots):
        own = shots[key]
        drawn += [draw.choice(own)] if count == 1 else draw.sample(own, min(count, len(own)))
    return np.array(drawn)


def official_galleries(file: str | Path) -> Official:
    """Reads SYSU-MM01's `exp/rand_perm_cam.mat`.

    Returns:
      {camid: for each identity from 1 on, int [trials, images]: numbers of its images from 1 on,
      in the order of each trial}.

    Raises:
      UserError: no such file, or another content.
    """
    try:
        cells = scipy.io.loadmat(file)["rand_perm_cam"].ravel()
        found = {camid: list(cell.ravel()) for camid, cell in enumerate(cells, 1)}
        if any(order.ndim != 2 for cell in found.values() for order in cell):
            raise ValueError("rand_perm_cam is no cell of cells of matrices")
        return found
    except Exception as error:  # whatever a damaged file makes SciPy raise
        raise UserError(
            f"{file}, which config.evaluation.galleries=official reads, is missing or damaged "
            f"({error}): copy it from SYSU-MM01, or use seeded"
        ) from error


def take_gallery(official: Official, images: ImageSet, rows, count: int, trial: int) -> np.ndarray:
    """The first `count` images per (pid, camid) of a trial of `official_galleries`.

    Arguments and result otherwise as in `draw_gallery`.

    Raises:
      UserError: `official` lacks an identity or a trial, or numbers an image that is not there.
    """
    taken = []
    for (pid, camid), own in sorted(_shots(images, rows).items()):
        by_number = {_number(images.path[row]): row for row in own}
        entries = official.get(camid, ())
        order = entries[pid - 1] if pid <= len(entries) else np.empty((0, 0))
        numbers = order[trial, :count].tolist() if trial < len(order) else []
        if not numbers or not set(numbers) <= by_number.keys():
            raise UserError(
                f"rand_perm_cam.mat has {numbers or 'nothing'} for identity {pid} in camera "
                f"{camid}, trial {trial + 1}, where images {min(by_number)} to {max(by_number)} "
                "are: it is of another copy of SYSU-MM01; use config.evaluation.galleries=seeded"
            )
        taken += [by_number[number] for number in numbers]
    return np.array(taken)


def _number(path):
    stem = PurePosixPath(path).stem
    return int(stem) if stem.isdecimal() else 0


def _shots(images, rows):
    """Rows by (pid, camid), each in the order of the file names."""
    shots = defaultdict(list)
    for row in sorted(rows, key=lambda row: images.path[row]):
        shots[int(images.pid[row]), int(images.camid[row])].append(row)
    return shots


def evaluate(
    features: dict[str, np.ndarray],
    images: ImageSet,
    protocols: Iterable[Protocol],
    re_ranked: bool = False,
) -> dict[str, dict]:
    """Measures every feature under every protocol; similarity is the dot product.

    Args:
      features: name -> float32 [n, F], row i belongs to row i of `images`.
      images: the split that the protocols were made from.
      protocols: see `protocols_for`.
      re_ranked: rank by `re_ranking.similarity` instead.

    Returns:
      {protocol: {feature: {"rank1": {"mean", "std"}, ..., "mAP", "mINP"}, "trials": count}},
      percent, the population standard deviation over trials.

    Raises:
      UserError: a trial in which no query has a match; features that are not finite.
    """
    results = {}
    for protocol in protocols:
        results[protocol.name] = {
            name: _over_trials(feature, images, protocol, re_ranked)
            for name, feature in features.items()
        }
        results[protocol.name]["trials"] = len(protocol.trials)
    return results


def _over_trials(feature, images, protocol, re_ranked):
    # One product serves all trials: they share their queries and many gallery images.
    query, query_at = _union([trial.query for trial in protocol.trials])
    gallery, gallery_at = _union([trial.gallery for trial in protocol.trials])
    similarity = None if re_ranked else feature[query] @ feature[gallery].T
    percent = []
    for trial, q, g in zip(protocol.trials, query_at, gallery_at, strict=True):
        if re_ranked:
            own = re_ranking.similarity(feature[trial.query], feature[trial.gallery])
        else:
            own = similarity[np.ix_(q, g)]
        ranked = ranking.rank(
            own,
            images.pid[trial.query],
            images.pid[trial.gallery],
            valid=protocol.valid(images, trial),
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
