"""Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017), in NumPy."""

import numpy as np


def similarity(query, gallery, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """Similarities that also count how many k-reciprocal neighbours two images share.

    With d the squared Euclidean distance, each row of all images divided by its maximum, and
    R(i, k) the images j among the k nearest of i that have i among their k nearest (an image is
    its own nearest, k + 1 in all):

      R*(i) = R(i, k1) and every R(j, k1/2), j in R(i, k1), of which more than 2/3 lies in R(i, k1)
      V[i, j] = exp(-d[i, j]) for j in R*(i), else 0, each row scaled to sum 1
      V[i] <- mean of V over the k2 nearest of i (local query expansion)
      Jaccard distance = 1 - sum_j min(V[q, j], V[g, j]) / sum_j max(V[q, j], V[g, j])

    Args:
      query: float [Q, F].
      gallery: float [G, F].
      k1, k2: the numbers of neighbours.
      weight: lambda, of the original distance beside the Jaccard distance.

    Returns:
      float32 [Q, G]: minus (1 - weight) * Jaccard distance + weight * d.
    """
    queries = len(query)
    distance = _distances(np.concatenate([query, gallery]))
    count = min(len(distance), max(k1, k2) + 1)
    nearest = _nearest(distance, count)
    near, half = (_reciprocal(nearest[:, : k + 1]) for k in (k1, round(k1 / 2)))

    encoding = np.zeros_like(distance)  # V
    for i, own in enumerate(near):
        also = [half[j] for j in own if 3 * np.isin(half[j], own).sum() > 2 * len(half[j])]
        wide = np.unique(np.concatenate([own, *also]))
        value = np.exp(-distance[i, wide])
        encoding[i, wide] = value / value.sum()
    if k2 > 1:
        encoding = np.stack([encoding[own[:k2]].mean(0) for own in nearest])

    # Rows sum to 1, so the sum of maxima is 2 minus that of minima; only shared entries count.
    shared = np.zeros((queries, len(distance) - queries), np.float32)
    for column, own in zip(encoding[:queries].T, encoding[queries:].T, strict=True):
        rows, columns = np.flatnonzero(column), np.flatnonzero(own)
        if len(rows) and len(columns):
            shared[np.ix_(rows, columns)] += np.minimum.outer(column[rows], own[columns])
    jaccard = 1 - shared / (2 - shared)
    return -((1 - weight) * jaccard + weight * distance[:queries, queries:])


def _distances(x):
    squared = np.square(x).sum(1, dtype=np.float32)
    distance = np.maximum(squared[:, None] + squared - 2 * (x @ x.T), 0)
    return distance / np.maximum(distance.max(1, keepdims=True), np.finfo(np.float32).tiny)


def _nearest(distance, count):
    """The `count` nearest of each image, nearest first, [n, count]."""
    near = np.argpartition(distance, count - 1, axis=1)[:, :count]
    order = np.take_along_axis(distance, near, 1).argsort(1, kind="stable")
    return np.take_along_axis(near, order, 1)


def _reciprocal(nearest):
    """For each image those of its nearest that have it among theirs."""
    return [own[(nearest[own] == i).any(1)] for i, own in enumerate(nearest)]
