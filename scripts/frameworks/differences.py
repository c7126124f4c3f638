"""Whether two sides compute the same."""

import numpy as np

from vireid_jax.types import UserError

# Largest differences that are rounding. In float32 a ReLU near zero opens on one side alone, which
# moves gradients by the square root of the share of such units: they, and the losses of the second
# step, are compared in float64, and in float32 with gates that are smooth.
TOLERANCE = {
    "float64": {
        "losses": 1e-8,
        "second losses": 1e-8,
        "gradients": 1e-6,
        "parameters": 1e-8,
        "statistics": 1e-8,
        "outputs": 1e-8,
    },
    "float32": {"losses": 1e-4, "outputs": 1e-4},
    "smooth float32": {
        "losses": 1e-4,
        "second losses": 1e-4,
        "gradients": 1e-4,
        "parameters": 1e-4,
        "statistics": 1e-4,
    },
}


def by_stage(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest difference of two sides' arrays, by the stage in their names "stage/name".

    It is the norm of the difference, relative to the array's norm or to 1e-3 of the largest norm
    of the stage. NaN is equal to NaN.

    Raises:
      UserError: an array that only one side has.
    """
    if one.keys() != other.keys():
        only = ", ".join(sorted(one.keys() ^ other.keys()))
        raise UserError(f"only one of the two computes {only}")
    found = {}
    for stage in dict.fromkeys(name.split("/")[0] for name in one):
        names = [name for name in one if name.startswith(f"{stage}/")]
        norms = {name: _norm(np.nan_to_num(one[name])) for name in names}
        floor = 1e-3 * max(norms.values())
        found[stage] = max(
            _norm(_difference(one[name], other[name])) / max(norms[name], floor) for name in names
        )
    return found


def require_rounding(mode: str, kind: str, differences: dict[str, float]) -> None:
    """Refuses differences of stages that are larger than `TOLERANCE`.

    Raises:
      UserError: naming the stage.
    """
    for stage, difference in differences.items():
        if not difference <= TOLERANCE[kind].get(stage, np.inf):
            raise UserError(
                f"{mode}: {stage} differ by {difference:.0e} in {kind}, so that the two do not "
                "compute the same"
            )


def _difference(x, y):
    same_nan = np.isnan(x) & np.isnan(y)
    return np.where(same_nan, 0.0, np.asarray(x, np.float64) - y)


def _norm(x):
    return float(np.linalg.norm(np.asarray(x, np.float64)))
