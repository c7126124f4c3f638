"""Features of an image set, in batches of one size."""

import numpy as np
from tqdm import tqdm

from vireid_jax.types import ImageSet, Modality


def extract(
    embed, image_set: ImageSet, batch: int, heatmaps: bool = False
) -> dict[str, np.ndarray]:
    """Embeds every image with its own modality's stream.

    Args:
      embed: {modality: function of uint8 images [batch, H, W, 3] to {name: [batch, F]}}.
      image_set: n images.
      batch: rows per call; the last call is filled up with repeated rows, whose results are
        dropped (rows do not influence each other at test time).
      heatmaps: the functions take those of the set, uint8 [batch, h, w, J], after the images.

    Returns:
      {name: float32 [n, F]} in the order of the set, the narrowest feature first.
    """
    features = {}
    with tqdm(total=len(image_set), desc="embedding", unit="img", leave=False) as progress:
        for modality in Modality:
            rows = np.flatnonzero(image_set.modality == modality)
            for start in range(0, len(rows), batch):
                own = rows[start : start + batch]
                filled = np.resize(own, batch)
                inputs = inputs_of(image_set, filled, heatmaps)
                for name, values in embed[modality](*inputs).items():
                    store = features.setdefault(
                        name, np.empty((len(image_set), values.shape[1]), np.float32)
                    )
                    store[own] = values[: len(own)]
                progress.update(len(own))
    return dict(sorted(features.items(), key=lambda item: item[1].shape[1]))


def of_branches(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """f_ID and, with a pose branch, f_P: what f_ALL has besides (Eq. 13)."""
    narrow, wide = features["f_ID"], features.get("f_ALL")
    return {"f_ID": narrow} if wide is None else {"f_ID": narrow, "f_P": wide[:, narrow.shape[1] :]}


def inputs_of(image_set: ImageSet, rows, heatmaps: bool) -> tuple[np.ndarray, ...]:
    """What a network takes of some rows of a set: the images, and perhaps the heatmaps."""
    return image_set.images[rows], *((image_set.heatmaps[rows],) if heatmaps else ())
