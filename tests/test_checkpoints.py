"""Checkpoints that are damaged, and disks without room."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.state import TrainState
from vireid_jax.types import UserError

# TensorStore may still call back for a damaged array when Orbax has closed its event loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step, size=5_000):
    values = np.random.default_rng(step).normal(size=size)
    return TrainState(np.int32(step), {"w": values}, {"mean": values[:3]}, ())


def save(folder, *steps):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state(step))


def damage(folder, step):
    """Cuts the largest file of a checkpoint in half."""
    files = [file for file in (folder / str(step)).rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.mark.parametrize("read_only", [False, True])
def test_the_one_before_a_damaged_checkpoint_is_used_with_a_warning(tmp_path, capsys, read_only):
    save(tmp_path, 1, 2)
    damage(tmp_path, 2)
    with Checkpoints(tmp_path, read_only) as checkpoints:
        restored = checkpoints.restore(state(0))
        assert checkpoints.latest == 1
        np.testing.assert_array_equal(restored.params["w"], state(1).params["w"])
        shown = capsys.readouterr().out
        assert f"checkpoint {tmp_path / '2'} is damaged; using that of step 1" in shown
        step, variables = checkpoints.variables()
        np.testing.assert_array_equal(variables["params"]["w"], state(step).params["w"])
        assert step == 1
    assert (tmp_path / "2").exists()


def test_a_run_that_continues_replaces_the_damaged_checkpoint(tmp_path):
    save(tmp_path, 1, 3)
    damage(tmp_path, 3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(state(0))
        checkpoints.save(state(2))
        checkpoints.save(state(3))
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(state(0))
    np.testing.assert_array_equal(restored.params["w"], state(3).params["w"])
    assert sorted(x.name for x in tmp_path.iterdir()) == ["2", "3"]


def test_of_a_run_that_begins_anew_the_best_is_forgotten(tmp_path):
    with Checkpoints(tmp_path, best=True) as best:
        best.save(state(2), 2.0)
        best.forget_after(2)
        with pytest.raises(ValueError, match="step 1 is not after 2"):
            best.save(state(1), 1.0)
        best.forget_after(1)
        best.save(state(2), 1.0)
    with Checkpoints(tmp_path, best=True) as best:
        assert int(best.restore(state(0)).step) == 2
        best.forget_after(0)
        assert best.latest is None


def test_a_checkpoint_of_another_network_is_refused_and_kept(tmp_path):
    save(tmp_path, 1, 2)
    other = state(0, size=7)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="does not fit"):
        checkpoints.restore(other)
    assert (tmp_path / "1").exists()
    assert (tmp_path / "2").exists()


WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from test_checkpoints import Checkpoints, save, state
from vireid_jax import command_line
from vireid_jax.training.workdir import Log

def main():
    folder = Path(FOLDER)
    save(folder, 1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # of any file, in bytes
    WRITE

command_line.run(main)
"""
CHECKPOINT = """
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state(2, 400_000))
"""
LOG = """
    log = Log(folder, 1)
    for step in range(10_000):
        log.write(step, {"loss": 1.0})
"""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(CHECKPOINT, "could not be written (File too large", id="checkpoint"),
        pytest.param(LOG, "File too large: make room there", id="log"),
    ],
)
def test_without_room_the_run_ends_with_a_message_and_keeps_what_it_had(tmp_path, write, message):
    script = WITHOUT_ROOM.replace("FOLDER", repr(str(tmp_path))).replace("WRITE", write.strip())
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert message in done.stderr
    if write is CHECKPOINT:
        assert "the last one there is of step 1" in done.stderr
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(state(0)).step) == 1
