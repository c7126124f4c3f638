"""Prints how a run learned, and how it does on people it knows and on people it does not.

    python scripts/diagnose.py --config=configs/synthetic.py --workdir=runs/synthetic

First the raw loss terms, averaged over tenths of the run; then, by the first protocol, each
branch's feature alone, and of each branch the stripes one by one, with the correlation of the
similarities that two of them give: the less alike they are, the more they add to each other; then
retrieval from every camera in every other, all images of it, among as many training as test
identities. Where both are alike, more training would help; where they are not, more data.
"""

import itertools
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from vireid_jax import command_line
from vireid_jax.evaluation import ranking
from vireid_jax.evaluation.features import of_branches
from vireid_jax.evaluation.protocols import evaluate
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.workdir import Workdir, read_lines
from vireid_jax.types import Modality, UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "File of the run's configuration.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
PARTS = 10
DRAWS = 5  # of training identities


def curve(metrics: Path) -> str:
    """Means of the logged terms over equal parts of a run."""
    lines = read_lines(metrics)
    if not lines:
        raise UserError(f"{metrics} has no line: the run has not logged a step yet")
    logged = dict.fromkeys(name for line in lines for name in line)  # a changed config changes them
    terms = [name for name in logged if name not in ("step", "learning_rate")]
    rows = ["steps up to  " + "".join(f"{name:>15}" for name in terms)]
    for part in np.array_split(lines, min(PARTS, len(lines))):
        values = [[line[name] for line in part if name in line] for name in terms]
        cells = (f"{np.mean(own):15.4f}" if own else f"{'-':>15}" for own in values)
        rows.append(f"{part[-1]['step']:11}  " + "".join(cells))
    return "\n".join(rows)


def between_cameras(features, image_set, pids) -> dict:
    """{(query camera, gallery camera): (rank-1, mAP)} in percent, among images of `pids`.

    A camera is its modality and its number, since the two modalities may share numbers.
    """
    among = np.isin(image_set.pid, pids)
    cameras = np.stack([image_set.modality, image_set.camid], 1)
    own = {
        tuple(camera.tolist()): np.flatnonzero(among & (cameras == camera).all(1))
        for camera in np.unique(cameras[among], axis=0)
    }
    found = {}
    for query, gallery in itertools.permutations(sorted(own), 2):
        rows, columns = own[query], own[gallery]
        pids = image_set.pid[rows], image_set.pid[columns]
        figures = ranking.rank(features[rows] @ features[columns].T, *pids).percent()
        found[query, gallery] = figures["rank1"], figures["mAP"]
    return found


def mean_between_cameras(features, image_set, count, rng) -> dict:
    """`between_cameras` among `count` identities at random, the mean of `DRAWS` draws."""
    everybody = np.unique(image_set.pid)
    draws = 1 if count == len(everybody) else DRAWS
    found = [
        between_cameras(features, image_set, rng.choice(everybody, count, replace=False))
        for _ in range(draws)
    ]
    pairs = set.intersection(*(set(own) for own in found))
    return {pair: np.mean([own[pair] for own in found], 0) for pair in pairs}


def of_stripes(feature, parts, image_set, protocol) -> tuple[list[float], float]:
    """The mAP of each stripe alone, and the mean correlation between two stripes' similarities."""
    stripes = dict(enumerate(np.split(feature, parts, 1)))
    figures = evaluate(stripes, image_set, [protocol])[protocol.name]
    query, visible = (np.flatnonzero(image_set.modality == m) for m in reversed(Modality))
    similarities = [(own[query] @ own[visible].T).ravel() for own in stripes.values()]
    between = np.corrcoef(similarities)[np.triu_indices(parts, 1)]
    return [figures[stripe]["mAP"]["mean"] for stripe in stripes], between.mean()


def main():
    """Reads the log, embeds both splits as --mode=evaluate would, prints."""
    experiment = Experiment(CONFIG.value)
    workdir = Workdir(WORKDIR.value, CONFIG.value)
    selected = CONFIG.value.train.selection != "last"
    place = workdir.best if selected else workdir.checkpoints
    with Checkpoints(place, read_only=True, best=selected) as checkpoints:
        state = checkpoints.restore(experiment.abstract_state())
    print(curve(workdir.path / "metrics.jsonl"))
    flip = CONFIG.value.evaluation.flip_averaging
    sets, found = (experiment.train_set, experiment.test_set), []
    count, rng = min(len(np.unique(own.pid)) for own in sets), np.random.default_rng(0)
    for image_set in sets:
        features = experiment.features(state, image_set, flip)
        name, widest = list(features.items())[-1]
        found.append(mean_between_cameras(widest, image_set, count, rng))
    protocol, *_ = experiment.protocols
    alone = of_branches(features)
    figures = evaluate(alone, experiment.test_set, [protocol])[protocol.name]
    print(f"\n{protocol.name:<12}  rank-1 / mAP   mean mAP of its stripes alone, correlation, each")
    parts = CONFIG.value.model.parts
    for branch, feature in alone.items():
        rank1, mAP = (figures[branch][figure]["mean"] for figure in ("rank1", "mAP"))
        stripes, alike = of_stripes(feature, parts, experiment.test_set, protocol)
        each = " ".join(f"{own:.1f}" for own in stripes)
        together = f"{rank1:5.2f} / {mAP:5.2f}"
        print(f"{branch:<12}  {together}  {np.mean(stripes):.2f}  {alike:.2f}  {each}")
    print(f"\n{name}, rank-1 / mAP, query - gallery camera, {count} identities")
    print(" " * 25 + "training identities    test identities")
    for query, gallery in sorted(found[0].keys() & found[1].keys()):
        cells = ("{:5.1f} / {:4.1f}".format(*pairs[query, gallery]) for pairs in found)
        print(f"{_named(query):>11} - {_named(gallery):<11}" + "".join(f"{x:>19}" for x in cells))


def _named(camera):
    modality, number = camera
    return f"{Modality(modality).name.lower()} {number}"


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
