"""The head of a ranking of a gallery that is larger than memory, in NumPy.

Shape letters: `Q` queries, `G` gallery images, `F` numbers a feature, `k` nearest.
"""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from vireid_jax.types import UserError

_BYTES = 2**28  # of a block and its similarities


def nearest(
    query, read: Callable[[int, int], np.ndarray], total: int, count: int, block: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most similar gallery images of every query, by descending dot product.

    They are those of the whole ranking: ties go to the lower gallery row, as in `ranking.rank`.
    Products are taken in float32, block by block, and of what was ranked only the best are kept:
    beside the queries and the result, memory holds 256 MiB and what `read` holds.

    Args:
      query: float [Q, F].
      read: (start, stop) -> float [stop - start, F], these rows of the gallery. A file should be
        mapped anew by each call, `np.load(file, mmap_mode="r")[start:stop]`: a map that stays keeps
        in memory what it has shown.
      total: G.
      count: k; all, where the gallery has fewer.
      block: rows at a time; as many as the memory above allows where None.

    Returns:
      int64 [Q, k], gallery rows, and float32 [Q, k], their similarities.

    Raises:
      UserError: a feature is NaN or infinite.
    """
    query = np.asarray(query, np.float32)
    count = min(count, total)
    rows = np.zeros((len(query), count), np.int64)
    best = np.full((len(query), count), -np.inf, np.float32)
    if not count:
        return rows, best
    block = block or max(1, _BYTES // (query.itemsize * (query.shape[1] + 2 * len(query))))
    with tqdm(total=total, desc="ranking", unit="img", leave=False) as progress:
        for start in range(0, total, block):
            stop = min(start + block, total)
            similarity = query @ np.asarray(read(start, stop), np.float32).T  # [Q, b]
            if not np.isfinite(similarity).all():
                raise UserError(
                    "the features to rank are not finite, so the training diverged: use an earlier "
                    "checkpoint, or train with a lower learning rate"
                )
            # Rows ascend, so that a similarity equal to the last of the best comes too late.
            better = similarity > best[:, -1:]
            for i in np.flatnonzero(better.any(1)):
                own = np.flatnonzero(better[i])
                values = np.concatenate([best[i], similarity[i, own]])
                order = np.argsort(-values, kind="stable")[:count]
                best[i] = values[order]
                rows[i] = np.concatenate([rows[i], start + own])[order]
            progress.update(stop - start)
    return rows, best
