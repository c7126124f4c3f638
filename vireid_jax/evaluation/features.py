"""Features of an image set, in batches of one size."""

import operator
from functools import partial

import jax
import numpy as np
from tqdm import tqdm

from vireid_jax.types import ImageSet, Modality


def extract(
    embed, image_set: ImageSet, batch: int, heatmaps: bool = False
) -> dict[str, np.ndarray]:
    """Embeds every image with its own modality's stream.

    Args:
      embed: {modality: function of batches of uint8 images [batch, H, W, 3], in a tuple each, to
        {name: [batch, F]} for each}.
      image_set: n images.
      batch: see `in_batches`.
      heatmaps: the tuples also hold those of the set, uint8 [batch, h, w, J].

    Returns:
      {name: float32 [n, F]} in the order of the set, the narrowest feature first.
    """
    features = {}
    with tqdm(total=len(image_set), desc="embedding", unit="img", leave=False) as progress:
        for modality in Modality:
            rows = np.flatnonzero(image_set.modality == modality)
            inputs = partial(inputs_of, image_set, heatmaps=heatmaps)
            for own, found in in_batches(embed[modality], rows, batch, inputs):
                for name, values in found.items():
                    store = features.setdefault(
                        name, np.empty((len(image_set), values.shape[1]), np.float32)
                    )
                    store[own] = values
                progress.update(len(own))
    return dict(sorted(features.items(), key=lambda item: item[1].shape[1]))


def in_batches(function, rows: np.ndarray, size: int, inputs):
    """Yields some of the rows and their results, until all have had their turn.

    Args:
      function: of batches of inputs, to a tree of arrays [size, ...] for each.
      rows: int [n].
      size: rows of a batch; the last is filled up with repeated rows, whose results are dropped
        (rows do not influence each other at test time).
      inputs: function of `size` rows.
    """
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    results = function(inputs(np.resize(own, size)) for own in parts)
    for own, found in zip(parts, results, strict=True):
        yield own, jax.tree.map(operator.itemgetter(slice(len(own))), found)


def of_branches(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """f_ID and, with a pose branch, f_P: what f_ALL has besides (Eq. 13)."""
    narrow, wide = features["f_ID"], features.get("f_ALL")
    return {"f_ID": narrow} if wide is None else {"f_ID": narrow, "f_P": wide[:, narrow.shape[1] :]}


def inputs_of(image_set: ImageSet, rows, heatmaps: bool) -> tuple[np.ndarray, ...]:
    """What a network takes of some rows of a set: the images, and perhaps the heatmaps."""
    return image_set.images[rows], *((image_set.heatmaps[rows],) if heatmaps else ())
