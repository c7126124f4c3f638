"""Several runs as one program: each is the run that its seed and weights make alone."""

import itertools
import json
import re

import jax
import numpy as np
import pytest
from test_training import worst

from vireid_jax.data import loader
from vireid_jax.models import network
from vireid_jax.training import train, trained, workdir
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.replicas import Replicas, single_configs
from vireid_jax.types import UserError


@pytest.fixture
def two(tiny):
    """Other seeds and weights, one of which is zero."""
    config = tiny("baseline")
    # Adam would blow rounding up to full steps where the exact gradient is zero.
    config.optimizer.rule, config.optimizer.warmup_epochs = "sgd", 0.0
    config.replicas.seed = (3, 5)
    config.replicas.hetero_center = (2.0, 0.0)
    return config


@pytest.fixture
def in_float64(monkeypatch):
    """Networks that compute in float64."""
    build = network.build
    monkeypatch.setattr(
        network, "build", lambda model, ids, _, *rest: build(model, ids, "float64", *rest)
    )
    with jax.enable_x64(True):
        yield


def two_steps(experiment):
    """The start, the state after two steps, and what they logged."""
    start = jax.device_get(experiment.init_state())
    wide = jax.tree.map(lambda x: np.float64(x) if x.dtype == "float32" else x, start)
    state, update = experiment.devices.replicate(wide), experiment.train_step()
    batches, logged = experiment.batches(), []
    for step in range(2):
        state, values = update(state, experiment.devices.place(batches[step]))
        logged.append(jax.device_get(values))
    return wide, jax.device_get(state), logged


def test_a_replica_is_the_single_run_of_its_seed_and_weights(two, in_float64):
    together = Replicas(two)
    _, state, logged = two_steps(together)
    for index, config in enumerate(single_configs(two)):
        start, alone, own_logged = two_steps(Experiment(config))
        own = together.state_of(index, state)
        assert jax.tree.structure(own) == jax.tree.structure(alone)
        assert worst(start.params, alone.params) > 1e-3
        assert worst(alone, own) < 1e-9
        for values, own_values in zip(logged, own_logged, strict=True):
            for name, value in own_values.items():
                assert values[name][index] == pytest.approx(value, rel=1e-9)


def test_the_folder_of_a_replica_is_that_of_a_run_alone(tiny, tmp_path, monkeypatch):
    config = tiny("baseline")
    config.replicas.seed = (1, 2)
    whole = loader.iterate

    def broken(batches, start, place):
        yield from itertools.islice(whole(batches, start, place), 3 - start)
        raise KeyboardInterrupt

    monkeypatch.setattr(loader, "iterate", broken)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path / "run"))
    monkeypatch.setattr(loader, "iterate", whole)
    results = train.train(config, str(tmp_path / "run"))  # from its checkpoint after step 2
    with pytest.raises(UserError, match=r"several runs: name one of .*replica_\*"):
        trained.load(tmp_path / "run")

    alone = tiny("baseline")
    alone.seed = 2
    own, single = tmp_path / "run" / "replica_1", tmp_path / "alone"
    (tmp_path / "run_2").mkdir()
    expected = train.train(alone, str(single))
    for name in ("config.json", "environment.json"):
        assert (own / name).read_text() == (single / name).read_text()
    assert json.loads((own / "results.json").read_text()) == results[1]
    assert results[1]["losses"] == expected["losses"]
    assert results[0]["protocols"] != results[1]["protocols"]
    lines, expected_lines = (workdir.read_lines(x / "metrics.jsonl") for x in (own, single))
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line, other in zip(lines, expected_lines, strict=True):
        assert line == pytest.approx(other, rel=1e-2)
    assert trained.load(own).step == 4
    assert train.evaluate(alone, str(own)) == results[1]
    newest = tmp_path / "run" / "checkpoints" / "4"
    for file in newest.rglob("*"):  # damaged: the runs go on from the one before
        if file.is_file():
            file.write_bytes(b"")
    assert train.train(config, str(tmp_path / "run")) == results
    single.rename(tmp_path / "run_2" / "replica_1")
    with pytest.raises(UserError, match=r"replica_1 holds a run that was trained alone"):
        train.train(config, str(tmp_path / "run_2"))
    assert trained.load(tmp_path / "run_2" / "replica_1").results == expected


def test_weights_of_l_pose_need_heatmaps(tiny, tmp_path):
    config = tiny()
    config.data.heatmaps, config.replicas.pose = "none", (0.0, 5.0)
    with pytest.raises(UserError, match=r"pose=\(0\.0, 5\.0\), but .* has no heatmaps here"):
        train.train(config, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("variant", "replicas", "message"),
    [
        ("full", {"seed": (1, 2), "pose": (5.0,)}, "pose has 1, config.replicas.seed has 2: give"),
        ("baseline", {"pose": (1.0, 5.0)}, "config.loss has no pose here"),
        ("full", {"seed": (1, -2)}, "config.seed=-2 must be 0 or more"),
    ],
)
def test_replicas_that_cannot_be_are_refused(tiny, tmp_path, variant, replicas, message):
    config = tiny(variant)
    config.replicas.update(replicas)
    with pytest.raises(UserError, match=re.escape(message)):
        train.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
