"""scripts/compare_frameworks.py: both compute the same, a difference is noticed, figures appear."""

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jax
import numpy as np
import pytest

from frameworks import differences
from vireid_jax.types import UserError

ROOT = Path(__file__).parents[1]

with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no PyTorch here")


def compare(folder, *options):
    """The JSON that the script writes."""
    file = folder / "figures.json"
    command = [sys.executable, "scripts/compare_frameworks.py", f"--output={file}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_the_largest_difference_of_a_stage_is_relative_to_its_array_or_the_stage():
    one = {
        "losses/a": np.array([3.0, 4.0]),
        "losses/b": np.array([1e-9]),
        "outputs/c": np.array([np.nan, 1.0]),
    }
    other = one | {"losses/a": np.array([3.0, 4.5]), "losses/b": np.array([2e-9])}
    assert differences.by_stage(one, one) == {"losses": 0, "outputs": 0}
    assert differences.by_stage(one, other) == pytest.approx({"losses": 0.1, "outputs": 0})
    differences.require_rounding("embed", "float32", {"outputs": 1e-5, "statistics": 1})
    for value in (np.nan, 1.1):
        found = differences.by_stage(one, one | {"outputs/c": np.array([np.nan, value])})
        with pytest.raises(UserError, match="embed: outputs differ by"):
            differences.require_rounding("embed", "float32", found)
    with pytest.raises(UserError, match="only one of the two computes outputs/c"):
        differences.by_stage(one, {k: x for k, x in one.items() if k != "outputs/c"})


@with_torch
def test_rankings_are_compared_timed_and_drawn(tmp_path):
    found = compare(tmp_path, "--preset=tiny", "--modes=evaluate", "--starts=2", "--rounds=1")
    assert found["machine"]["threads"] == len(os.sched_getaffinity(0))
    figures = found["presets"]["tiny"]["modes"]["evaluate"]
    assert figures["differences"] == {"float32": {"outputs": pytest.approx(0, abs=1e-12)}}
    assert len(figures["ratios"]["eager"]) == 2
    assert set(figures["sides"]["eager"]["versions"]) == {"torch", "python"}
    assert figures["sides"]["jax"]["versions"]["jax"] == jax.__version__
    drawn = ET.parse(tmp_path / "figures.svg").getroot()
    assert len([x for x in drawn if x.tag.endswith("rect")]) == 3  # background, two bars


@with_torch
@pytest.mark.slow
def test_both_networks_compute_the_same_and_are_timed(tmp_path):
    """Differences as docs/benchmarks.md has them; the script refuses larger ones than rounding."""
    found = compare(
        tmp_path, "--preset=tiny", "--modes=train,embed,extract", "--starts=1", "--rounds=1"
    )
    modes = found["presets"]["tiny"]["modes"]
    for mode, figures in modes.items():
        assert max(figures["differences"]["float64"].values()) < 1e-8, mode
        assert figures["differences"]["float32"]["losses" if mode == "train" else "outputs"] < 1e-4
        assert all(0 < side["share"] < 1 for side in figures["sides"].values()), mode
        assert figures["floors_s"]["operations"] < min(figures["sides"]["eager"]["seconds"])
    stages = ["losses", "gradients", "second losses", "parameters", "statistics"]
    found = modes["train"]["differences"]
    assert list(found) == ["float64", "float32", "smooth float32"]
    assert list(found["float64"]) == stages


@with_torch
@pytest.mark.slow
def test_rankings_are_thirty_times_and_batches_fifteen_times_as_fast(tmp_path):
    found = compare(tmp_path, "--preset=paper", "--modes=evaluate,data")
    for mode, times in (("evaluate", 30), ("data", 15)):
        assert np.median(found["presets"]["paper"]["modes"][mode]["ratios"]["eager"]) > times
