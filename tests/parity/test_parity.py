"""scripts/check_parity.py on the PyTorch reference numbers, and on damaged ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT.parent / "shared" / "parity"
QUICK = ("losses_ops", "eval_metrics", "sampler_lr_pose_teacher", "refine_c_oddsize")

pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no reference numbers here")


def check(folder, *options):
    command = [sys.executable, "scripts/check_parity.py", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


def linked(folder, names):
    folder.mkdir()
    for name in ("set.json", *(f"{name}.npz" for name in names)):
        (folder / name).symlink_to(FIXTURES / name)
    return folder


def test_quick_fixtures_pass_in_float64(tmp_path):
    status, lines, errors = check(linked(tmp_path / "quick", QUICK), "--float64")
    assert status == 0, errors
    assert [line.split()[:2] for line in lines] == [["ok", f"{n}.npz"] for n in sorted(QUICK)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--float64",), ()], ids=["float64", "float32"])
def test_every_fixture_passes(options):
    status, lines, errors = check(FIXTURES, *options)
    assert status == 0, errors
    assert len(lines) == len(list(FIXTURES.glob("*.npz")))


def test_one_value_changed_by_a_hundredth_fails(tmp_path):
    (tmp_path / "set.json").write_bytes((FIXTURES / "set.json").read_bytes())
    for name, key in {
        "losses_ops": "kd1/grad_teacher",
        "eval_metrics": "regdb_b/ap",
        "sampler_lr_pose_teacher": "lr/code_sysu_epoch0_149",
        "refine_c_oddsize": "f64/eval/heatmap",
    }.items():
        with np.load(FIXTURES / f"{name}.npz") as archive:
            content = dict(archive)
        values = content[key].ravel()
        values[np.nanargmax(abs(values))] *= 1.01
        content[key] = values.reshape(content[key].shape)
        np.savez(tmp_path / f"{name}.npz", **content)
    np.savez(tmp_path / "other.npz", x=np.zeros(1))
    with np.load(FIXTURES / "refine_b.npz") as archive:
        np.savez(tmp_path / "refine_b.npz", **archive, **{"f64/more": np.zeros(1)})
    status, lines, _ = check(tmp_path, "--float64")
    assert status == 1
    assert len(lines) == 6
    assert all(line.startswith("FAIL") for line in lines), lines
    assert any(line == "FAIL other.npz: of no known kind" for line in lines)
    assert any("not compared: f64/more" in line for line in lines)


def test_a_folder_without_fixtures_is_refused(tmp_path):
    status, _, errors = check(tmp_path)
    assert status == 2
    assert errors.splitlines()[-1] == f"error: {tmp_path} has no .npz files"
