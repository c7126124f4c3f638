"""report.html: a run on one page that stands alone."""

import numpy as np

from vireid_jax.evaluation import page, ranked_lists, report
from vireid_jax.training.workdir import read_lines

NAME = "report.html"
_LISTS, _DEPTH = 5, 10  # ranked lists of either kind, and their length
_TITLES = {
    "loss": "L, weighted",
    "identity": "L_id",
    "hetero_center": "L_hctri",
    "pose": "L_pose",
    "distillation": "L_KD",
    "learning_rate": "learning rate",
}


def write(experiment, features: dict, results: dict, workdir) -> None:
    """Of an `Experiment`: tables, curves, ranked lists.

    Args:
      experiment: whose run it is.
      features: of the test set, by name.
      results: the content of results.json.
      workdir: of the run.
    """
    body = [page.paragraph(remark) for remark in report.remarks(results)]
    body += _tables(results)
    body += _curves(workdir)
    body += _ranked_lists(experiment, features)
    body += _appendix(workdir)
    workdir.write_text(NAME, page.document(report.title(results), body))


def write_poses(results: dict, workdir) -> None:
    """Of a pose teacher: PCKh and curves."""
    columns, rows = report.pose_cells(results)
    body = [page.table(["", *columns], rows), *_curves(workdir), *_appendix(workdir)]
    workdir.write_text(NAME, page.document(report.pose_title(results), body))


def _tables(results):
    for heading, rows in report.blocks(results).items():
        yield page.heading(heading)
        rows = {name: [cell.replace("+-", "±") for cell in cells] for name, cells in rows.items()}
        yield page.table(["%", *report.FIGURES], rows)


def _curves(workdir):
    lines = read_lines(workdir.path / "metrics.jsonl")
    if not lines:  # of weights that were never trained here
        return
    steps = [line["step"] for line in lines]
    names = [*_TITLES, *(name for name in lines[-1] if name not in {"step", *_TITLES})]
    curves = {
        _TITLES.get(name, name): (steps, [line[name] for line in lines])
        for name in names
        if name in lines[-1]
    }
    rates = read_lines(workdir.path / "throughput.jsonl")
    if rates:
        values = [line["steps_per_second"] for line in rates]
        name = f"steps per second, median {np.median(values):.3g}"
        curves[name] = [line["step"] for line in rates], values
    yield page.heading("Training")
    yield page.charts(curves)


def _ranked_lists(experiment, features):
    name, widest = list(features.items())[-1]
    protocol, images = experiment.protocols[0], experiment.test_set
    re_ranked = experiment.config.evaluation.re_ranking
    best, worst = ranked_lists.best_and_worst(widest, images, protocol, _LISTS, _DEPTH, re_ranked)
    note = f"{name}, first gallery of {protocol.name}; below the images, cosines and identities."
    for heading, lists in (("Best queries", best), ("Worst queries", worst)):
        yield page.heading(heading)
        yield page.paragraph(note, soft=True)
        yield from (page.ranked_list(images, ranked) for ranked in lists)


def _appendix(workdir):
    yield page.heading("Run")
    for name in ("environment.json", "config.json"):
        yield page.details(name, (workdir.path / name).read_text())
