"""k-reciprocal re-ranking against its definition, one pair at a time."""

import numpy as np
import pytest

from vireid_jax.evaluation import re_ranking
from vireid_jax.evaluation.protocols import evaluate, regdb_protocols
from vireid_jax.types import ImageSet


def by_definition(query, gallery, k1, k2, weight):
    x = np.concatenate([query, gallery]).astype(np.float64)
    n = len(x)
    d = np.array([[np.square(a - b).sum() for b in x] for a in x])
    d = np.array([row / row.max() for row in d])
    ranked = [sorted(range(n), key=lambda j: (d[i][j], j)) for i in range(n)]

    def reciprocal(i, k):
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    v = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(i, k1)
        wide = set(own)
        for j in own:
            half = reciprocal(j, round(k1 / 2))
            if len(half & own) > 2 / 3 * len(half):
                wide |= half
        for j in wide:
            v[i, j] = np.exp(-d[i, j])
        v[i] /= v[i].sum()
    v = np.array([np.mean([v[j] for j in ranked[i][:k2]], 0) for i in range(n)])
    result = np.empty((len(query), len(gallery)))
    for a in range(len(query)):
        for b in range(len(gallery)):
            other = len(query) + b
            jaccard = 1 - np.minimum(v[a], v[other]).sum() / np.maximum(v[a], v[other]).sum()
            result[a, b] = -((1 - weight) * jaccard + weight * d[a, other])
    return result


def people(seed, count=12, shots=3, width=6):
    rng = np.random.default_rng(seed)
    identity = rng.standard_normal((count, width))
    features = np.repeat(identity, shots, 0) + 0.6 * rng.standard_normal((count * shots, width))
    return features.astype(np.float32), np.repeat(np.arange(count), shots)


@pytest.mark.parametrize(("k1", "k2", "weight"), [(8, 4, 0.3), (5, 1, 0.0), (20, 6, 0.3)])
def test_equals_the_definition(k1, k2, weight):
    query, _ = people(0)
    gallery, _ = people(1, count=20, shots=2)
    found = re_ranking.similarity(query, gallery, k1, k2, weight)
    np.testing.assert_allclose(found, by_definition(query, gallery, k1, k2, weight), atol=2e-6)


def test_more_neighbours_than_images():
    query, _ = people(0, count=2, shots=1)
    gallery, _ = people(1, count=3, shots=1)
    found = re_ranking.similarity(query, gallery)
    np.testing.assert_allclose(found, by_definition(query, gallery, 20, 6, 0.3), atol=2e-6)


def test_it_helps_where_identities_are_clusters_and_is_off_by_default():
    features, pid = people(3, count=15, shots=8)
    n = len(pid)
    images = ImageSet(pid, pid, pid, (np.arange(n) % 2).astype(np.int32), np.arange(n).astype(str))
    plain, re_ranked = (
        evaluate({"f": features}, images, regdb_protocols(images), *chosen)["visible-thermal"]["f"]
        for chosen in ((), (True,))
    )
    assert re_ranked["mAP"]["mean"] > plain["mAP"]["mean"] + 1
