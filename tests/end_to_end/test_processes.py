"""Whole processes of the tiny experiment: several of one run, and one that is killed."""

import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from vireid_jax.data import images
from vireid_jax.training import train
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.workdir import read_lines

ROOT = Path(__file__).parents[2]


def start(data_dir, workdir, *options, variant="baseline", devices=1, **environment):
    """main.py on tests/tiny.py with so many host devices; what it says goes to WORKDIR.txt."""
    config = f"--config=tests/tiny.py:{variant}"
    command = [sys.executable, "main.py", config, f"--workdir={workdir}"]
    environment |= {
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=4", f"count={devices}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    with open(f"{workdir}.txt", "a") as said:
        return subprocess.Popen(
            [*command, f"--config.data.dir={data_dir}", *options],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=said,
            stderr=said,
        )


def finish(process, workdir):
    assert process.wait(timeout=600) == 0, Path(f"{workdir}.txt").read_text()


def metrics(workdir):
    return read_lines(workdir / "metrics.jsonl")


def last_state(workdir):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        return manager.restore(manager.latest_step(), args=ocp.args.StandardRestore())


@pytest.fixture(scope="module")
def rendered(tiny, data_dir):
    """The folder of data, complete."""
    for split in ("train", "test"):
        images.load_images(tiny().data, split)
    return data_dir


def start_pair(data_dir, workdir, *options):
    """Two processes of one run, two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [
        start(data_dir, workdir, "--distributed", *options, devices=2, JAX_PROCESS_ID=i, **shared)
        for i in ("0", "1")
    ]


@pytest.fixture
def config(tiny):
    config = tiny("baseline")
    config.optimizer.rule = "sgd"  # Adam would blow rounding up where a gradient is nearly zero
    return config


def test_two_processes_with_two_devices_are_one_with_four(config, rendered, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    train.train(config, str(alone))
    for process in start_pair(rendered, together, "--config.optimizer.rule=sgd"):
        finish(process, together)
    said = Path(f"{together}.txt").read_text()
    assert said.count("all-seeded (10 trials)") == 1  # the first process alone reports
    environment = json.loads((together / "environment.json").read_text())
    assert (environment["devices"], environment["processes"]) == (4, 2)
    for one, other in zip(metrics(alone), metrics(together), strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    one, other = last_state(alone)["params"], last_state(together)["params"]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max() + 1e-5)


def test_a_signal_to_one_process_stops_both_and_other_devices_go_on(config, rendered, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    config.train.steps, config.train.checkpoint_every = 80, 100
    config.optimizer.learning_rate = 1e-4  # keeps rounding from growing over the steps
    train.train(config, str(alone))
    options = (
        "--config.optimizer.rule=sgd",
        "--config.optimizer.learning_rate=1e-4",
        "--config.train.steps=80",
        "--config.train.checkpoint_every=100",
    )
    pair = start_pair(rendered, together, *options)
    while len(metrics(together)) < 3 and [process.poll() for process in pair] == [None, None]:
        time.sleep(0.02)
    pair[1].terminate()
    assert [process.wait(timeout=600) for process in pair] == [128 + signal.SIGTERM] * 2
    saved = len(metrics(together))
    assert 3 <= saved < 80
    finish(start(rendered, together, *options, devices=1), together)  # on one device, not four
    assert f"continuing {together} after step {saved}" in Path(f"{together}.txt").read_text()
    for one, other in zip(metrics(alone), metrics(together), strict=True):
        assert one == pytest.approx(other, rel=1e-2)
    began = jax.tree.map(np.asarray, Experiment(config).init_state().params)
    one, other = (last_state(x)["params"] for x in (alone, together))
    moved, apart = (optax.tree.norm(jax.tree.map(np.subtract, one, x)) for x in (began, other))
    # Without its momentum a run loses nine steps of eighty; rounding has made up to 0.02.
    assert apart < 0.05 * moved


def test_a_process_that_fails_alone_does_not_leave_the_other_waiting(rendered, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which the first process alone asks for
        pair = start_pair(rendered, folder)
        try:
            assert pair[0].wait(timeout=300) == 2
            assert pair[1].wait(timeout=300) != 0
        finally:
            for process in pair:
                process.kill()
    assert f"error: another run works in {folder}" in Path(f"{folder}.txt").read_text()


def kill_and_repeat(data_dir, folder, kills, *options, **how):
    """Compares a run that is killed so often, each time repeated, with an undisturbed one."""
    whole, torn = folder / "whole", folder / "torn"
    finish(start(data_dir, whole, *options, **how), whole)
    draw, logged = random.Random(0), 0
    print("\nkill  doing        logged  saved")
    for kill in range(1, kills + 1):
        process, goal = start(data_dir, torn, *options, **how), logged + draw.randint(0, 12)
        while process.poll() is None and len(metrics(torn)) < goal:
            time.sleep(0.05)
        time.sleep(0.3 * draw.random())
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        said = re.split("[\r\n]", Path(f"{torn}.txt").read_text())
        bars = [x.split(":")[0] for x in said if x.startswith(("training", "embedding"))]
        saving = any(torn.glob("checkpoints/*tmp*"))
        doing = "saving" if saving else bars[-1] if bars else "starting"
        saved = [int(x.name) for x in torn.glob("checkpoints/*") if x.name.isdigit()]
        logged = len(metrics(torn))
        print(f"{kill:4}  {doing:<11}  {logged:6}  {max(saved, default=0):5}")
    finish(start(data_dir, torn, *options, **how), torn)
    for name in ("results.json", "metrics.jsonl"):
        assert (torn / name).read_bytes() == (whole / name).read_bytes()
    jax.tree.map(np.testing.assert_array_equal, last_state(torn), last_state(whole))


def test_a_run_killed_twice_ends_as_if_it_had_not_been(rendered, tmp_path):
    options = "--config.train.steps=60", "--config.train.checkpoint_every=3"
    kill_and_repeat(rendered, tmp_path, 2, *options)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_as_if_it_had_not_been(rendered, tmp_path):
    options = (
        "--config.train.steps=200",
        "--config.train.checkpoint_every=3",
        "--config.train.eval_every=20",
    )
    kill_and_repeat(rendered, tmp_path, 20, *options, variant="full", devices=4)
