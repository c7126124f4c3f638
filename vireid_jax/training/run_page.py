"""report.html: a run on one page that stands alone."""

import dataclasses
import math

import numpy as np
from tqdm import tqdm

from vireid_jax.data import heatmaps
from vireid_jax.evaluation import baselines, diagnosis, page, ranked_lists, report
from vireid_jax.evaluation.features import of_branches
from vireid_jax.training.workdir import PAGE, read_lines
from vireid_jax.types import ImageSet, Modality

_LISTS, _DEPTH = 5, 10  # ranked lists of either kind, and their length
_IDS, _IMAGES = 256, 2  # looked at in a diagnosis, at most; images of each and modality
_TITLES = {
    "loss": "L, weighted",
    "identity": "L_id",
    "hetero_center": "L_hctri",
    "pose": "L_pose",
    "distillation": "L_KD",
    "learning_rate": "learning rate",
}


def write(experiment, state, features: dict, results: dict, workdir) -> None:
    """Of an `Experiment`: tables, diagnosis, curves, ranked lists. Says aloud what is found.

    Args:
      experiment: whose run it is.
      state: that was evaluated.
      features: of the test set, by name.
      results: the content of results.json.
      workdir: of the run.
    """
    near = diagnosis.near_chance(results)
    checks = diagnose(experiment, state, features)
    for check in checks:
        if check.found:
            tqdm.write(f"warning: {check.cause}: {check.measured}; {check.advice}")
    body = [page.paragraph(remark) for remark in report.remarks(results)]
    body += _tables(results)
    body += _diagnosis(near, checks)
    body += _curves(workdir)
    body += _ranked_lists(experiment, features)
    body += _appendix(workdir)
    workdir.write_text(PAGE, page.document(report.title(results), body))


def write_poses(results: dict, workdir) -> None:
    """Of a pose teacher: PCKh and curves."""
    columns, rows = report.pose_cells(results)
    body = [page.table(["", *columns], rows), *_curves(workdir), *_appendix(workdir)]
    workdir.write_text(PAGE, page.document(report.pose_title(results), body))


def diagnose(experiment, state, features: dict) -> list[diagnosis.Check]:
    """Looks for every known cause of results near chance; [] for too few identities.

    Args:
      experiment: an `Experiment`, whose sets are looked at.
      state: that was evaluated.
      features: of the test set, by name.
    """
    train, test = _some_of(experiment.train_set), experiment.test_set
    shared = [
        np.intersect1d(*(own.pid[own.modality == m] for m in Modality)) for own in (train, test)
    ]
    if min(map(len, shared)) < diagnosis.LEAST_IDS:
        return []
    widest = list(features.values())[-1]
    # Of the training set nothing that the network says can contradict the labels it was taught.
    checks = [
        _swapped_stems(experiment, state, train),
        diagnosis.label_offset(
            baselines.hog(train.images), train.pid, train.modality, "training images, by HOG"
        ),
        diagnosis.label_offset(widest, test.pid, test.modality, "test images, by the network"),
        diagnosis.constant_features(of_branches(features), test.modality),
    ]
    if train.heatmaps is not None:
        maps = train.heatmaps[..., : len(heatmaps.JOINTS)].max(-1)  # without the background
        checks.append(diagnosis.misaligned_heatmaps(train.images, maps, train.camid))
    return checks


def _swapped_stems(experiment, state, train):
    own, other = (experiment.identity_losses(state, train, swap) for swap in (False, True))
    branches = 2 if experiment.config.model.pose_branch else 1
    ids = len(np.unique(experiment.train_set.pid))
    chance = branches * experiment.config.model.parts * math.log(ids)
    return diagnosis.swapped_stems(own, other, train.pid, chance)


def _some_of(images: ImageSet) -> ImageSet:
    """Some images of some identities, spread evenly over both."""
    pids = np.unique(images.pid)
    chosen = []
    for pid in pids[_spread(len(pids), _IDS)]:
        for modality in Modality:
            rows = np.flatnonzero((images.pid == pid) & (images.modality == modality))
            chosen += rows[_spread(len(rows), _IMAGES)].tolist()
    chosen.sort()
    arrays = {
        field.name: np.asarray(getattr(images, field.name)[chosen])
        for field in dataclasses.fields(images)
        if isinstance(getattr(images, field.name), np.ndarray)
    }
    return dataclasses.replace(images, **arrays)


def _spread(count, most):
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _tables(results):
    for heading, rows in report.blocks(results).items():
        yield page.heading(heading)
        rows = {name: [cell.replace("+-", "±") for cell in cells] for name, cells in rows.items()}
        yield page.table(["%", *report.FIGURES], rows)


def _diagnosis(near, checks):
    yield page.heading("Diagnosis")
    if not checks:
        yield page.paragraph("Too few identities to tell a cause from chance.", soft=True)
        return
    found = [check for check in checks if check.found]
    verdict = "The mAP is near chance." if near else "The mAP is not near chance."
    if found:
        verdict += f" Found: {', '.join(check.cause for check in found)}."
    elif near:
        verdict += (
            " None of the known causes is found. Where L_id of training images is near that of "
            "guessing, the network has not learned its training identities: train for longer, or "
            "with another learning rate."
        )
    yield page.paragraph(verdict)
    rows = {
        f"{number}. {check.cause}": [
            "found" if check.found else "not found",
            check.measured + (f". {check.advice}" if check.found else ""),
        ]
        for number, check in enumerate(checks, 1)
    }
    marked = [name for name, (verdict, _) in rows.items() if verdict == "found"]
    yield page.table(["cause", "", "measured"], rows, marked, text=True)


def _curves(workdir):
    lines = read_lines(workdir.path / "metrics.jsonl")
    if not lines:  # of weights that were never trained here
        return
    names = [*_TITLES, *(name for name in lines[-1] if name not in {"step", *_TITLES})]
    curves = {}
    for name in names:  # a run that went on with another config may have a term from then on
        if own := [(line["step"], line[name]) for line in lines if name in line]:
            curves[_TITLES.get(name, name)] = tuple(zip(*own, strict=True))
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
        if (workdir.path / name).exists():
            yield page.details(name, (workdir.path / name).read_text())
