"""CMC, mAP and mINP of ranked galleries, in NumPy.

Shape letters: `Q` queries, `G` gallery images.
"""

import dataclasses

import numpy as np

from vireid_jax.types import UserError

MAX_RANK = 20
_COMPARISONS = 2**26  # held in memory at a time, a byte each


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The figures of one query set ranked against one gallery, as fractions.

    Attributes:
      ap: float64 [Q], average precision; NaN for a query without a valid match.
      inp: float64 [Q], inverse negative penalty; NaN likewise.
      cmc: float64 [MAX_RANK]; entry k-1 is the share of queries, among those with a match, whose
        first match has rank k or better. A gallery that ends earlier leaves it constant.
    """

    ap: np.ndarray
    inp: np.ndarray
    cmc: np.ndarray

    @property
    def skipped(self) -> int:
        """Number of queries without a valid match; no figure counts them."""
        return int(np.isnan(self.ap).sum())

    def percent(self) -> dict[str, float]:
        """rank1, rank5, rank10, rank20, mAP and mINP in percent; NaN if every query is skipped."""
        figures = {f"rank{k}": self.cmc[k - 1] for k in (1, 5, 10, 20)}
        figures |= {"mAP": np.nanmean(self.ap), "mINP": np.nanmean(self.inp)}
        return {name: 100 * float(value) for name, value in figures.items()}


def camera_mask(query_camid, gallery_camid, excluded) -> np.ndarray | None:
    """Which pairs may be compared, by their cameras alone.

    SYSU-MM01's rule: cameras 2 and 3 stand at the same place, so a query of camera 3 is compared
    with no image of camera 2, whatever its identity: `excluded=((3, 2),)`.

    Args:
      query_camid: int [Q].
      gallery_camid: int [G].
      excluded: pairs (query camid, gallery camid) that are never compared.

    Returns:
      bool [Q, G], False for excluded pairs; None where nothing is excluded.
    """
    if not excluded:
        return None
    valid = np.ones((len(query_camid), len(gallery_camid)), bool)
    for query_camera, gallery_camera in excluded:
        valid[np.ix_(query_camid == query_camera, gallery_camid == gallery_camera)] = False
    return valid


def rank(similarity, query_pid, gallery_pid, *, valid=None, cmc_on: str = "images") -> Ranking:
    """Ranks the gallery for every query, by descending similarity, ties by gallery row.

    With p_1 < ... < p_m the positions of a query's m matches among its valid gallery images:
    AP = 1/m sum_j j / p_j and INP = m / p_m. The rank that CMC counts is p_1 (`images`), or the
    position of the query's identity once each identity is reduced to its first image
    (`identities`, the SYSU-MM01 protocol).

    A match's position is one plus the number of images ahead of it, so the gallery is not sorted.
    The loop is over identities: their queries share their matches, and one identity's comparisons
    stay in the processor's cache. Ties are looked for, and sorted out only where there are any.

    Args:
      similarity: float [Q, G].
      query_pid: int [Q].
      gallery_pid: int [G].
      valid: bool [Q, G]; False removes an image from that query's list. None keeps all.
      cmc_on: "images" or "identities".

    Raises:
      UserError: a similarity is NaN or infinite, as after a training that diverged.
    """
    if cmc_on not in ("images", "identities"):
        raise ValueError(f"cmc_on must be 'images' or 'identities', not {cmc_on!r}")
    # Every comparison with NaN is False: such a match would have nothing ahead of it, rank 1.
    if not np.isfinite(similarity).all():
        raise UserError(
            "the features to rank are not finite, so the training diverged: evaluate an earlier "
            "checkpoint, or train with a lower learning rate"
        )
    if valid is not None:
        similarity = np.where(valid, similarity, -np.inf)
    pids, identity, counts = np.unique(gallery_pid, return_inverse=True, return_counts=True)
    position = np.full((len(query_pid), counts.max()), np.inf)
    place = np.zeros(len(query_pid), int)  # the rank that CMC counts
    count_dtype = np.min_scalar_type(len(gallery_pid))  # sums are quicker in few bytes
    blocks = list(_blocks(query_pid, gallery_pid))
    most = max((len(rows) for rows, _ in blocks), default=0)
    cell = np.arange(most)[:, None] * len(pids) + identity  # [q, G], where `seen` has an image
    for rows, columns in blocks:
        near = similarity[rows]  # [q, G]
        own = near[:, columns]  # [q, m]
        listed = own > -np.inf
        own = np.where(listed, own, np.inf)[..., None]
        ahead = near[:, None] > own  # [q, m, G]
        ties = near[:, None] == own
        if np.count_nonzero(ties) > np.count_nonzero(listed):  # more than each with itself
            ahead |= ties & (np.arange(len(gallery_pid)) < columns[:, None])
        number_ahead = ahead.view(np.uint8).sum(-1, dtype=count_dtype)
        of_match = np.where(listed, 1.0 + number_ahead, np.inf)  # [q, m]
        position[rows, : len(columns)] = of_match
        if cmc_on == "identities":
            of_first = ahead[np.arange(len(rows)), of_match.argmin(1)]  # [q, G]
            seen = np.zeros((len(rows), len(pids)), bool)
            seen.reshape(-1)[cell[: len(rows)][of_first]] = True
            place[rows] = 1 + np.count_nonzero(seen, 1)

    position.sort(1)
    hits = np.count_nonzero(np.isfinite(position), 1)
    asked = np.flatnonzero(hits)
    ap, inp = np.full((2, len(hits)), np.nan)
    if not len(asked):
        return Ranking(ap, inp, np.full(MAX_RANK, np.nan))
    position, hits = position[asked], hits[asked]
    ap[asked] = (np.arange(1, position.shape[1] + 1) / position).sum(1) / hits  # j / inf = 0
    inp[asked] = hits / position[np.arange(len(asked)), hits - 1]
    place = position[:, 0].astype(int) if cmc_on == "images" else place[asked]
    at_rank = np.bincount(place, minlength=MAX_RANK + 1)[1 : MAX_RANK + 1]
    return Ranking(ap, inp, np.cumsum(at_rank) / len(asked))


def _blocks(query_pid, gallery_pid):
    """Rows of queries of one identity and the columns of their matches, few enough for memory."""
    for pid in np.intersect1d(query_pid, gallery_pid):
        rows, columns = np.flatnonzero(query_pid == pid), np.flatnonzero(gallery_pid == pid)
        together = max(1, _COMPARISONS // (len(columns) * len(gallery_pid)))
        for start in range(0, len(rows), together):
            yield rows[start : start + together], columns
