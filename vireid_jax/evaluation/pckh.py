"""PCKh: the share of predicted joints within a part of the head's length (LIP protocol)."""

import numpy as np

_NECK, _HEAD_TOP = 8, 9
_UPPER_BODY = np.arange(8, 16)
_AVERAGED = np.r_[0:6, 8:16]  # neither pelvis nor thorax


def pckh(predicted, truth, thresholds=(0.5,)) -> np.ndarray:
    """Percentages of joints found.

    A joint counts as found if its distance is at most `threshold` times the distance of neck and
    head top. Joints without a true position are not counted, nor are images that lack neck or head
    top.

    Args:
      predicted: float [n, 16, 2], x and y in pixels, in LIP order.
      truth: float [n, 16, 2]; x = -1 where a joint is missing.
      thresholds: shares of the head's length.

    Returns:
      float64 [thresholds, 18]: the 16 joints, the upper body (joints 8 to 15), and the average
      over all but pelvis and thorax; the last two over all their joints at once. NaN where nothing
      is counted.
    """
    predicted, truth = (np.asarray(x, np.float64) for x in (predicted, truth))
    there = truth[..., 0] != -1  # [n, 16]
    counted = there & there[:, [_NECK]] & there[:, [_HEAD_TOP]]
    head = np.linalg.norm(truth[:, _NECK] - truth[:, _HEAD_TOP], axis=-1)
    distance = np.linalg.norm(predicted - truth, axis=-1)
    groups = [*np.arange(16)[:, None], _UPPER_BODY, _AVERAGED]
    table = np.full((len(thresholds), len(groups)), np.nan)
    for row, threshold in enumerate(thresholds):
        found = counted & (distance <= threshold * head[:, None])
        for column, joints in enumerate(groups):
            if counted[:, joints].any():
                table[row, column] = 100 * found[:, joints].sum() / counted[:, joints].sum()
    return table
