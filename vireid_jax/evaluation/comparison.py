"""Variants compared over several seeds: spread, gain and a paired test."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Compared:
    """One variant, by one feature, beside the one before it.

    Attributes:
      variant, feature: which.
      rank1, mAP: percent, one for each seed.
      gain: of mAP over the variant before with the same seed; None for the first.
      p: of a paired two-sided t-test that there is no gain; None for the first, or one seed.
    """

    variant: str
    feature: str
    rank1: np.ndarray
    mAP: np.ndarray
    gain: np.ndarray | None
    p: float | None


def compare(results: dict[str, Sequence[dict]]) -> list[Compared]:
    """Each variant with the one before it, feature by feature, by the first protocol.

    Args:
      results: for each variant the contents of results.json, one a seed and in their order.
    """
    found = []
    for feature in ("f_ID", "f_ALL"):
        before = None
        for variant, runs in results.items():
            figures = [next(iter(run["protocols"].values())).get(feature) for run in runs]
            if None in figures:  # no pose branch
                continue
            rank1, mAP = (np.array([f[name]["mean"] for f in figures]) for name in ("rank1", "mAP"))
            gain = None if before is None else mAP - before
            p = None
            if gain is not None and len(gain) > 1:
                p = float(stats.ttest_rel(mAP, before).pvalue)
            found.append(Compared(variant, feature, rank1, mAP, gain, p))
            before = mAP
    return found


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation of a sample; of one value, that."""
    mean = f"{values.mean():.2f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.2f}"
