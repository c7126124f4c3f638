"""The measurements behind each cause of results near chance: they name it, and nothing else."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny as tiny_config
from tiny import TINY

from vireid_jax.data.synthetic import tiers
from vireid_jax.evaluation import diagnosis
from vireid_jax.training import run_page
from vireid_jax.training.experiment import Experiment
from vireid_jax.types import Modality

CROWD = dataclasses.replace(
    TINY, name="crowd", splits=(("train", 24), ("test", 16)), first_person=95_001
)


# The measurements, on made-up arrays


def crowd_of(ids, each=4):
    """pid and modality of `each` visible and infrared images of every identity."""
    pid = np.repeat(np.arange(ids) * 3 + 5, 2 * each)
    modality = np.tile(np.repeat(list(Modality), each), ids)
    return pid, modality


def shifted(pid, modality, by):
    """Infrared images get the number of the identity that comes `by` places later."""
    pids = np.unique(pid)
    later = pids[(np.searchsorted(pids, pid) + by) % len(pids)]
    return np.where(modality == Modality.INFRARED, later, pid)


def recognisable(pid, modality, rng, noise=1.0):
    """A direction for each identity in noise, and an offset that belongs to the modality."""
    own = rng.normal(size=(pid.max() + 1, 32))[pid] + 5 * rng.normal(size=(2, 32))[modality]
    return own + noise * rng.normal(size=own.shape)


@pytest.mark.parametrize("by", [1, -2, 9])
def test_a_shift_of_labels_is_found_and_measured(by):
    rng = np.random.default_rng(0)
    pid, modality = crowd_of(20)
    features = recognisable(pid, modality, rng)
    assert not diagnosis.label_offset(features, pid, modality, "images").found
    check = diagnosis.label_offset(features, shifted(pid, modality, by), modality, "images")
    assert check.found
    assert f"shifted by {by}," in check.measured


def test_a_gain_has_to_be_there_for_all_identities():
    rng = np.random.default_rng(0)
    pid, _ = crowd_of(20)
    loss = rng.uniform(1, 5, len(pid))
    better = loss - rng.uniform(0.5, 1, len(pid))
    assert diagnosis.swapped_stems(loss, better, pid, 10.0).found
    assert not diagnosis.swapped_stems(better, loss, pid, 10.0).found
    assert not diagnosis.swapped_stems(loss, better, pid, 2.0).found  # nothing is recognised
    for_one = np.where(pid == pid[0], loss - 50, loss)
    assert not diagnosis.swapped_stems(loss, for_one, pid, 10.0).found


def test_what_all_images_of_a_modality_share_tells_none_apart():
    rng = np.random.default_rng(0)
    _, modality = crowd_of(20)
    features = rng.normal(size=(len(modality), 16))
    dead = 0.01 * features + rng.normal(size=(2, 16))[modality]
    good = diagnosis.constant_features({"f_ID": features}, modality)
    bad = diagnosis.constant_features({"f_ID": features, "f_P": dead}, modality)
    assert (good.found, bad.found) == (False, True)
    assert "0.0 % of f_P" in bad.measured


def people(count, height, width, rng):
    """Bright bars on noise where a person would stand, and a map of where each bar is."""
    rows, columns = np.mgrid[:height, :width]
    images = rng.normal(100, 10, (count, height, width))
    maps = np.zeros((count, height, width))
    for image, own in zip(images, maps, strict=True):
        for _ in range(4):
            y, x = rng.uniform(0.2, 0.8, 2) * (height, width)
            away = np.square((rows - y) / height) + np.square((columns - x) / height)
            own[:] = np.maximum(own, np.exp(-away / 0.002))
            image[away < 0.001] += 60
    images = np.repeat(images[..., None], 3, -1).clip(0, 255).astype(np.uint8)
    return images, (255 * maps[:, 2::4, 2::4]).astype(np.uint8)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("moved 17 % up", lambda maps: np.roll(maps, 4, 1)),
        ("moved 17 % right", lambda maps: np.roll(maps, -2, 2)),
        ("mirrored and in place", lambda maps: maps[:, :, ::-1]),
        ("upside down and in place", lambda maps: maps[:, ::-1]),
        ("", lambda maps: np.roll(maps, 1, 0)),  # each image has another's
    ],
)
def test_heatmaps_that_lie_elsewhere_are_found_with_the_way_back(words, change):
    images, maps = people(256, 96, 48, np.random.default_rng(0))
    maps, camid = maps / 255, np.arange(256) % 2
    assert not diagnosis.misaligned_heatmaps(images, maps, camid).found
    check = diagnosis.misaligned_heatmaps(images, change(maps), camid)
    assert check.found
    assert words in check.measured


def test_noise_is_no_cause():
    pid, modality = crowd_of(12)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(len(pid), 16))
        losses = rng.normal(size=(2, len(pid)))
        assert not diagnosis.label_offset(features, pid, modality, "images").found
        assert not diagnosis.swapped_stems(*losses, pid, 10.0).found
        assert not diagnosis.constant_features({"f_ID": features}, modality).found
        images, maps = rng.integers(0, 256, (60, 48, 24, 3), np.uint8), rng.random((60, 12, 6))
        assert not diagnosis.misaligned_heatmaps(images, maps, modality[:60]).found


@pytest.mark.parametrize(("m_ap", "near"), [(6.0, True), (13.0, True), (20.0, False)])
def test_near_chance_is_a_tenth_of_the_way_to_perfect(m_ap, near):
    figures = {"trials": 1, "f_ID": {"mAP": {"mean": 3.0}}, "f_ALL": {"mAP": {"mean": m_ap}}}
    chance = {"all": {"mAP": {"mean": 6.0}}}
    results = {"protocols": {"all": figures}, "baselines": {"chance": chance}}
    assert diagnosis.near_chance(results) == near


# Of an experiment


@pytest.fixture(scope="module")
def crowd(data_dir):
    """An experiment on a small crowd, its first state with stems that differ, and features."""
    tiers.TIERS[CROWD.name] = CROWD
    config = tiny_config.get_config("baseline")
    config.data.dir, config.data.tier = str(data_dir), CROWD.name
    experiment = Experiment(config)
    state = experiment.init_state()
    streams = state.params["streams"]
    streams = streams | {"ir": jax.tree.map(lambda x: 1.5 * x + 0.1, streams["rgb"])}
    rng = np.random.default_rng(0)
    features = {"f_ID": rng.normal(size=(len(experiment.test_set), 8))}
    yield experiment, state.replace(params=state.params | {"streams": streams}), features
    del tiers.TIERS[CROWD.name]


def changed(monkeypatch, experiment, **arrays):
    image_set = dataclasses.replace(experiment.train_set, **arrays)
    monkeypatch.setattr(experiment, "train_set", image_set)


def found(crowd):
    return {check.cause for check in run_page.diagnose(*crowd) if check.found}


def test_the_other_stem_is_that_of_swapped_weights(crowd):
    experiment, state, _ = crowd

    def swap(tree):
        streams = tree["streams"]
        return tree | {"streams": streams | {"rgb": streams["ir"], "ir": streams["rgb"]}}

    swapped = state.replace(params=swap(state.params), batch_stats=swap(state.batch_stats))
    few = run_page._some_of(experiment.train_set)
    own, other = (experiment.identity_losses(state, few, swap) for swap in (False, True))
    assert np.abs(own - other).max() > 1e-4
    np.testing.assert_array_equal(experiment.identity_losses(swapped, few, False), other)
    np.testing.assert_array_equal(experiment.identity_losses(swapped, few, True), own)


def test_sound_data_have_no_cause(crowd):
    assert found(crowd) == set()


def test_an_offset_of_the_training_labels_is_named(crowd, monkeypatch):
    own = crowd[0].train_set
    changed(monkeypatch, crowd[0], pid=shifted(own.pid, own.modality, 1))
    assert found(crowd) == {"label offset"}


def test_misaligned_heatmaps_are_named(crowd, monkeypatch):
    changed(monkeypatch, crowd[0], heatmaps=np.asarray(crowd[0].train_set.heatmaps)[:, :, ::-1])
    assert found(crowd) == {"heatmaps misaligned"}


def test_constant_features_are_named(crowd):
    experiment, state, features = crowd
    constant = {"f_ID": 0.01 * features["f_ID"] + 1}
    assert found((experiment, state, constant)) == {"features constant"}
