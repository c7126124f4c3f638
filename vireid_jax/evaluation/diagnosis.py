"""What makes results come out near chance: each known cause looked for by a measurement of its own.

A check is a pure function of arrays. But for `constant_features`, which has no noise, it names its
cause only where the measurement stands far out of its own, so that small sets leave it silent.
"""

import dataclasses

import numpy as np

from vireid_jax.types import Modality

LEAST_IDS = 16
"""Identities of both modalities, below which nothing is told from chance."""

_FAR = 6.0  # standard errors (or deviations) that no accident reaches
_NEAR = 0.1  # of the way from chance to perfect
_SAME = 0.1  # share of a feature's power that tells images apart; a trained one's is above 1/2
_GRID = 24, 12  # cells on which heatmaps and images are compared, at most
_AGREE = 0.8  # of the best correlation; edges need not be highest exactly at the joints
_LEAST_IMAGES = 256  # whose heatmaps must agree with them
_GROUPS = 8  # of images, whose disagreement is the noise


@dataclasses.dataclass(frozen=True)
class Check:
    """One cause, looked for.

    Attributes:
      cause: its name.
      found: whether it is there.
      measured: a sentence with the figures that say so, or not.
      advice: where to look if it is there.
    """

    cause: str
    found: bool
    measured: str
    advice: str


def near_chance(results: dict) -> bool:
    """Whether the mAP of every feature lies within a tenth of the way from chance to perfect.

    Args:
      results: the content of results.json; its first protocol counts.
    """
    protocol, measured = next(iter(results["protocols"].items()))
    chance = results["baselines"]["chance"][protocol]["mAP"]["mean"]
    best = max(own["mAP"]["mean"] for name, own in measured.items() if name != "trials")
    return best < chance + _NEAR * (100 - chance)


def swapped_stems(own, other, pid, chance: float) -> Check:
    """Whether training images are recognised better through the stem of the other modality.

    The gain is averaged over each identity's images, and has to be there for all of them.

    Args:
      own: float [n], the identity loss of each image through the stem of its own modality.
      other: float [n], through the other one.
      pid: int [n].
      chance: the loss of guessing; above it nothing is recognised, through whatever stem.
    """
    gain = _by_identity(own - other, pid)
    return Check(
        "swapped stems",
        _stands_out(gain) and other.mean() < chance,
        f"L_id of training images is {own.mean():.2f} as it is, and {other.mean():.2f} with "
        f"each through the stem of the other modality; guessing has {chance:.2f}",
        "the two modalities are exchanged between training and evaluation: look at the order of "
        "the streams, at weights that were converted, and at the modality of each image",
    )


def label_offset(features, pid, modality, what: str) -> Check:
    """Whether the identities of one modality fit those of the other better after a shift.

    Identities stand in a ring in ascending order. For every shift k, the similarity between the
    visible images of identity i and the infrared ones of identity i + k is averaged over i, each
    modality relative to its own mean. Only one k can be right; the others are the noise.

    Args:
      features: float [n, F]. Of training images they must not come from the network, which was
        taught the labels that are in question.
      pid: int [n].
      modality: int [n].
      what: images and features they are of, for the sentence.
    """
    pids = np.intersect1d(*(pid[modality == m] for m in Modality))
    centres = [_centres(features, pid, modality == m, pids) for m in Modality]
    similarity = centres[0] @ centres[1].T
    rows = np.arange(len(pids))[:, None]
    profile = similarity[rows, (rows + rows.T) % len(pids)].mean(0)  # by shift
    best = int(profile.argmax())
    noise = np.delete(profile, [0, best])
    heights = (profile - noise.mean()) / max(noise.std(), 1e-12)
    shift = best if 2 * best <= len(pids) else best - len(pids)
    return Check(
        "label offset",
        bool(best and heights[best] > _FAR and heights[best] - heights[0] > _FAR),
        f"{what}: the modalities agree best where identities are shifted by {shift}, "
        f"{heights[best]:.1f} deviations above other shifts; as labelled, {heights[0]:.1f}",
        "the identities of one modality are numbered differently from the other's: compare the "
        "lists or folders of both, and where their numbers start",
    )


def misaligned_heatmaps(images, maps, camid) -> Check:
    """Whether heatmaps lie on the images better when they are moved or turned over.

    On a coarse grid: where a person's edges are, relative to the mean over the camera's images, and
    where its keypoints are, likewise. From image to image both move together. They are correlated
    at every shift, with the maps as they are, mirrored, and upside down.

    Args:
      images: uint8 [n, H, W, 3].
      maps: float or uint8 [n, h, w], the maximum over the joints.
      camid: int [n].
    """
    grid = np.minimum(_GRID, maps.shape[1:])
    edges = np.stack([_on_grid(_edges(image), grid) for image in images])
    edges = _around_mean(edges / np.maximum(edges.mean((1, 2), keepdims=True), 1e-6), camid)
    maps = np.stack([_on_grid(own.astype(np.float32), grid) for own in maps])
    ways = {"as they are": maps, "mirrored": maps[:, :, ::-1], "upside down": maps[:, ::-1]}
    agreement = {way: _by_shift(_around_mean(x, camid), edges) for way, x in ways.items()}
    rows, columns = grid // 3
    near = agreement["as they are"][:, rows - 1 : rows + 2, columns - 1 : columns + 2]
    as_is = near[:, *_highest(near)]
    way = max(agreement, key=lambda way: agreement[way].sum(0).max())
    y, x = _highest(agreement[way])
    best = agreement[way][:, y, x]
    moved = (y - rows) / grid[0], (x - columns) / grid[1]
    elsewhere = as_is.mean() < _AGREE * best.mean() and _stands_out(best - as_is)
    unrelated = len(images) >= _LEAST_IMAGES and not _stands_out(as_is)
    return Check(
        "heatmaps misaligned",
        bool(elsewhere or unrelated),
        f"over {len(images)} images the heatmaps correlate by {as_is.mean():.3f} with the edges "
        f"below them, and at best, {way} and {_moved(moved)}, by {best.mean():.3f}",
        "the keypoint maps do not belong on these images, or not in this way: look at their order, "
        "and at how they were cropped, resized and mirrored",
    )


def constant_features(features: dict, modality) -> Check:
    """Whether the features of all images of a modality are nearly the same.

    Args:
      features: {name: float [n, F]}.
      modality: int [n].
    """
    own = {
        name: float(np.mean([_variation(f[modality == m]) for m in set(modality.tolist())]))
        for name, f in features.items()
    }
    shares = ", ".join(f"{100 * share:.1f} % of {name}" for name, share in own.items())
    return Check(
        "features constant",
        min(own.values()) < _SAME,
        f"{shares} tells one image of a modality from another; the rest is common to all",
        "a branch collapsed, and learns nothing from then on: use a longer warm-up, a lower "
        "learning rate, or a weaker hetero-center loss",
    )


def _stands_out(gains):
    """Whether the mean of independent gains is above zero by far."""
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return bool(gains.mean() > _FAR * error)


def _by_identity(values, pid):
    """The mean value of each identity."""
    _, place, counts = np.unique(pid, return_inverse=True, return_counts=True)
    return np.bincount(place, values) / counts


def _centres(features, pid, chosen, pids):
    """Mean feature of each of `pids` among the chosen rows, relative to the mean of all: [N, F]."""
    means = np.stack([features[chosen & (pid == p)].mean(0) for p in pids])
    means -= means.mean(0)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _edges(image):
    """Length of the gradient of the grey image, float32 [H, W]."""
    return np.hypot(*np.gradient(image.mean(-1, dtype=np.float32)))


def _on_grid(x, grid):
    """Means over the cells of a grid, [H, W] -> [*grid]."""
    for cells in grid:  # of the rows, then of the columns
        starts = np.arange(cells) * len(x) // cells
        counts = np.diff(np.append(starts, len(x)))[:, None]
        x = (np.add.reduceat(x, starts) / counts).T
    return x


def _around_mean(x, group):
    """[n, h, w], relative to the mean over each group."""
    _, place, counts = np.unique(group, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), *x.shape[1:]), x.dtype)
    np.add.at(means, place, x)
    return x - (means / counts[:, None, None])[place]


def _by_shift(maps, edges):
    """Correlation of maps moved by up to a third with edges: [groups, 2 h / 3 + 1, 2 w / 3 + 1]."""
    grid = edges.shape[1:]
    size = [2 * side for side in grid]
    a, b = (np.fft.rfft2(x, size) for x in (maps, edges))
    norm = np.sqrt(np.square(maps).sum() * np.square(edges).sum() / _GROUPS**2) or 1.0
    rows, columns = (np.arange(-(side // 3), side // 3 + 1) for side in grid)
    product = np.stack([(a[g::_GROUPS].conj() * b[g::_GROUPS]).sum(0) for g in range(_GROUPS)])
    return np.fft.irfft2(product, size)[:, rows[:, None], columns] / norm


def _highest(agreement):
    """Where the sum over the groups is highest."""
    total = agreement.sum(0)
    return np.unravel_index(total.argmax(), total.shape)


def _moved(shares):
    words = []
    for share, (before, after) in zip(shares, (("up", "down"), ("left", "right")), strict=True):
        if share:
            words.append(f"{100 * abs(share):.0f} % {after if share > 0 else before}")
    return "moved " + " and ".join(words) if words else "in place"


def _variation(f):
    """The share of the power of features [n, F] that is not their mean's."""
    power = np.square(f).sum(1).mean()
    return 1 - np.square(f.mean(0)).sum() / max(power, 1e-30)
