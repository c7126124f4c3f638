"""The queries that were answered best and worst, with what was found for them."""

import dataclasses

import numpy as np

from vireid_jax.evaluation import ranking, re_ranking
from vireid_jax.evaluation.protocols import Protocol
from vireid_jax.types import ImageSet


@dataclasses.dataclass(frozen=True)
class RankedList:
    """One query and the head of its list.

    Attributes:
      query: its row in the image set.
      ap: average precision, 0 to 1.
      found: int [depth], rows of the image set, the most similar first.
      similarity: float [depth], the cosine between the features of both.
    """

    query: int
    ap: float
    found: np.ndarray
    similarity: np.ndarray


def best_and_worst(
    feature, images: ImageSet, protocol: Protocol, count: int, depth: int, re_ranked: bool = False
) -> tuple[list[RankedList], list[RankedList]]:
    """The queries of highest and of lowest AP in a protocol's first trial, one for each identity.

    Args:
      feature: float32 [n, F], row i belongs to row i of `images`.
      images: the split that the protocol was made from.
      protocol: see `protocols.protocols_for`.
      count: lists of either kind, at most; fewer where there are fewer identities.
      depth: length of a list, at most.
      re_ranked: rank by `re_ranking.similarity`.
    """
    trial = protocol.trials[0]
    query, gallery = feature[trial.query], feature[trial.gallery]
    similarity = re_ranking.similarity(query, gallery) if re_ranked else query @ gallery.T
    pids, valid = images.pid[trial.query], protocol.valid(images, trial)
    ap = ranking.rank(
        similarity, pids, images.pid[trial.gallery], valid=valid, cmc_on=protocol.cmc_on
    ).ap

    def listed(row):
        allowed = np.arange(len(gallery)) if valid is None else np.flatnonzero(valid[row])
        found = allowed[np.argsort(-similarity[row, allowed], kind="stable")[:depth]]
        norms = np.linalg.norm(query[row]) * np.linalg.norm(gallery[found], axis=1)
        cosine = gallery[found] @ query[row] / norms
        return RankedList(int(trial.query[row]), float(ap[row]), trial.gallery[found], cosine)

    asked = np.flatnonzero(np.isfinite(ap))
    ascending = asked[np.argsort(ap[asked], kind="stable")]
    return tuple(
        [listed(row) for row in _one_for_each(order, pids)[:count]]
        for order in (ascending[::-1], ascending)
    )


def _one_for_each(rows, pids):
    """The first of `rows` of each identity, in their order."""
    first = np.unique(pids[rows], return_index=True)[1]
    return rows[np.sort(first)]
