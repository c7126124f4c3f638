"""Results as tables in the layout of the paper's Tables I and II."""

from collections.abc import Iterator

import numpy as np

SELECTIONS = {
    "last": "",
    "best-on-val": "selected on the validation identities",
    "best-on-test": "SELECTED ON THE TEST IDENTITIES, as in much published code: not a fair figure",
}
"""`config.train.selection`, and what is said about it wherever results are printed."""

FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")

# Tables I and II, in percent; rank 5 and mINP are not in the paper.
PUBLISHED = {
    "sysu_mm01": {
        "all": {
            "f_ID": {"rank1": 65.82, "rank10": 94.53, "rank20": 98.23, "mAP": 64.52},
            "f_ALL": {"rank1": 71.21, "rank10": 95.35, "rank20": 98.81, "mAP": 67.15},
        },
        "indoor": {
            "f_ID": {"rank1": 71.74, "rank10": 94.57, "rank20": 97.60, "mAP": 74.54},
            "f_ALL": {"rank1": 72.55, "rank10": 97.15, "rank20": 98.60, "mAP": 77.05},
        },
    },
    "regdb": {
        "visible-thermal": {
            "f_ID": {"rank1": 92.14, "rank10": 98.16, "rank20": 99.22, "mAP": 87.88},
            "f_ALL": {"rank1": 93.35, "rank10": 98.61, "rank20": 99.42, "mAP": 88.98},
        },
        "thermal-visible": {
            "f_ID": {"rank1": 91.36, "rank10": 97.57, "rank20": 98.88, "mAP": 86.70},
            "f_ALL": {"rank1": 92.72, "rank10": 98.79, "rank20": 99.36, "mAP": 87.83},
        },
    },
}


def table(results: dict) -> str:
    """A block per protocol: baselines, then measured features, then the paper's where it has any.

    Args:
      results: the content of results.json.
    """
    lines = [title(results), *(f"  {remark}" for remark in remarks(results))]
    for heading, rows in blocks(results).items():
        lines += ["", f"{heading:<26}" + "".join(f"{figure:>15}" for figure in FIGURES)]
        for name, cells in rows.items():
            lines.append(f"  {name:<24}" + "".join(f"{text:>15}" for text in cells))
    return "\n".join(lines)


def title(results: dict) -> str:
    """What was trained, on what, how long."""
    losses = " + ".join(results["losses"])
    return f"{results['config']} ({losses}) on {results['dataset']}, step {results['step']}"


def blocks(results: dict) -> dict[str, dict[str, list[str]]]:
    """The cells of `table`: {protocol and trials: {feature: one for each of `FIGURES`}}."""
    published, found = PUBLISHED.get(results["dataset"], {}), {}
    for protocol, measured in results["protocols"].items():
        trials = measured["trials"]
        rows = {name: b[protocol] for name, b in results["baselines"].items()}
        rows |= {name: figures for name, figures in measured.items() if name != "trials"}
        paper = published.get(protocol.removesuffix("-seeded"), {})
        rows |= {f"{name} (paper)": figures for name, figures in paper.items()}
        found[f"{protocol} ({trials} trial{'s' * (trials > 1)})"] = {
            name: [cell(figures.get(figure), trials) for figure in FIGURES]
            for name, figures in rows.items()
        }
    return found


def pose_table(results: dict) -> str:
    """PCKh by joint: a column per modality and predictor.

    Args:
      results: the content of a pose teacher's results.json.
    """
    columns, rows = pose_cells(results)
    lines = [pose_title(results), f"{'':<12}" + "".join(f"{name:>22}" for name in columns)]
    for joint, cells in rows.items():
        lines.append(f"{joint:<12}" + "".join(f"{text:>22}" for text in cells))
    return "\n".join(lines)


def pose_title(results: dict) -> str:
    """What was trained, on what, how long, and what is measured."""
    what = f"{results['config']} on {results['dataset']}, step {results['step']}"
    return f"{what}: PCKh at 0.5, %"


def pose_cells(results: dict) -> tuple[list[str], dict[str, list[str]]]:
    """The names of the columns of `pose_table`, and {joint: its cells}."""
    columns = {
        f"{modality} {name}": figures
        for modality, own in results["pckh"].items()
        for name, figures in own.items()
    }
    joints = max(columns.values(), key=len)
    rows = {
        joint: [cell(figures.get(joint), 1) for figures in columns.values()] for joint in joints
    }
    return list(columns), rows


def aggregate(results: list[dict]) -> dict:
    """The content of several results.json as one: mean and deviation of their means.

    Args:
      results: of runs that differ in their trial or seed alone.

    Returns:
      As results.json; `trials` counts the runs, `step` and the like are the first run's.
    """

    def over_runs(*values):
        if isinstance(values[0], dict) and "mean" not in values[0]:
            return {key: over_runs(*(v[key] for v in values)) for key in values[0]}
        if not isinstance(values[0], dict):
            return len(values)  # trials
        means = [v["mean"] for v in values]
        return {"mean": float(np.mean(means)), "std": float(np.std(means))}

    merged = {key: over_runs(*(r[key] for r in results)) for key in ("protocols", "baselines")}
    return results[0] | merged


def remarks(results: dict) -> Iterator[str]:
    """What a reader must know before comparing the figures with others."""
    if SELECTIONS[results["selection"]]:
        yield SELECTIONS[results["selection"]]
    if results["flip_averaging"]:
        yield "features averaged with those of the mirrored images; the baselines are not"
    if results["re_ranking"]:
        yield "RE-RANKED with k-reciprocal neighbours; the baselines are not"


def cell(value, trials: int) -> str:
    """A figure in a table: of results.json, a number, or None where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value['mean']:.2f}" + (f" +- {value['std']:.2f}" if trials > 1 else "")
