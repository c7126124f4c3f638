"""Whole runs of configs/synthetic.py, each spoilt on purpose: the page names what was done.

$ python -m pytest -m slow -n 0 -s tests/end_to_end/test_sabotage.py

renders the benchmark and trains for 600 steps a run, a quarter of an hour on one core.
"""

import dataclasses
import re

import numpy as np
import pytest

from configs import synthetic
from vireid_jax.data import images, loader
from vireid_jax.training import devices, train
from vireid_jax.types import Modality

pytestmark = pytest.mark.slow


def swap_stems(config, monkeypatch):
    """Each modality is trained through the other's stem."""
    item = loader.Batches.__getitem__

    def swapped(self, step):
        batch = item(self, step)
        return batch.replace(
            rgb=batch.ir,
            ir=batch.rgb,
            rgb_heatmap=batch.ir_heatmap,
            ir_heatmap=batch.rgb_heatmap,
        )

    monkeypatch.setattr(loader.Batches, "__getitem__", swapped)


def spoil_training_set(monkeypatch, change):
    load = images.load_images

    def spoilt(data, split, *options):
        found = load(data, split, *options)
        return dataclasses.replace(found, **change(found)) if split == "train" else found

    monkeypatch.setattr(images, "load_images", spoilt)


def offset_labels(config, monkeypatch):
    """Infrared images carry the number of the next identity."""

    def change(found):
        pids = np.unique(found.pid)
        later = np.roll(pids, -1)[np.searchsorted(pids, found.pid)]
        return {"pid": np.where(found.modality == Modality.INFRARED, later, found.pid)}

    spoil_training_set(monkeypatch, change)


def mirror_heatmaps(config, monkeypatch):
    """Heatmaps are mirrored, images are not."""
    spoil_training_set(
        monkeypatch, lambda found: {"heatmaps": np.asarray(found.heatmaps)[:, :, ::-1]}
    )


def leave_out_the_warm_up(config, monkeypatch):
    """AdamW takes L_pose's first gradients at full speed, and the pose features collapse."""
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.second_momentum = 0.999


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sabotage")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda *_: None, None),
        (swap_stems, "swapped stems"),
        (offset_labels, "label offset"),
        (mirror_heatmaps, "heatmaps misaligned"),
        (leave_out_the_warm_up, "features constant"),
    ],
)
def test_the_page_names_what_spoils_a_run_and_nothing_else(spoil, cause, folder, monkeypatch):
    config = synthetic.get_config()
    config.data.dir = str(folder / "data")
    config.train.steps = 600
    monkeypatch.setattr(devices.Devices.__init__, "__defaults__", (1,))  # of the tests' four
    spoil(config, monkeypatch)
    run = folder / (cause or "sound").replace(" ", "_")
    results = train.train(config, str(run))
    found = re.search(r"near chance\.(?: Found: ([^<.]*)\.)?", (run / "report.html").read_text())
    named = set(found[1].split(", ")) if found[1] else set()
    measured = next(iter(results["protocols"].values()))
    figures = (f"{name} {measured[name]['mAP']['mean']:.1f}" for name in ("f_ID", "f_ALL"))
    print(f"\n{cause or 'sound'}: mAP {', '.join(figures)}; named: {', '.join(named) or '-'}")
    assert named == ({cause} if cause else set())
