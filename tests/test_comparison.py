"""Tables and curves over several runs: the statistics, and the scripts on runs made by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from configs import variants
from vireid_jax.evaluation import comparison
from vireid_jax.training import train
from vireid_jax.training.replicas import single_configs
from vireid_jax.training.workdir import PAGE, Busy, Workdir

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"packages": {"jax": "1.2"}, "python": "3.x", "devices": 1, "device": "abacus"}


def results(mAP, wide=None, step=4):
    """The content of results.json."""

    def figures(value):
        return {"rank1": {"mean": value / 2, "std": 0.0}, "mAP": {"mean": value, "std": 0.0}}

    found = {"f_ID": figures(mAP), "trials": 10}
    found |= {} if wide is None else {"f_ALL": figures(wide)}
    return {"step": step, "protocols": {"all-seeded": found}}


def test_each_variant_is_compared_with_the_one_before_by_seed():
    found = comparison.compare(
        {
            "a": [results(10.0), results(20.0), results(30.0)],
            "b": [results(11.0, 1.0), results(23.0, 2.0), results(32.0, 3.0)],
            "c": [results(11.0, 3.0), results(23.0, 4.0), results(32.0, 5.0)],
        }
    )
    assert [(x.feature, x.variant) for x in found] == [
        ("f_ID", "a"), ("f_ID", "b"), ("f_ID", "c"), ("f_ALL", "b"), ("f_ALL", "c")
    ]  # fmt: skip
    first, second, *_, wide, widest = found
    assert (first.gain, first.p, wide.gain, wide.p) == (None,) * 4
    np.testing.assert_array_equal(second.gain, [1, 3, 2])
    # t = mean / (s / sqrt n) = 2 / (1 / sqrt 3), two sides of two degrees of freedom: by the closed
    # form p = 1 - t / sqrt(t^2 + 2).
    t = 2 * 3**0.5
    assert second.p == pytest.approx(1 - t / (t * t + 2) ** 0.5)
    np.testing.assert_array_equal(widest.gain, [2, 2, 2])
    assert comparison.spread(second.gain) == "2.00 ± 1.00"
    assert comparison.spread(second.gain[:1]) == "1.00"


def end(folder, config, content, between=(), steps=4):
    """Leaves a run's folder as training would after 4 of so many steps, as far as it is read."""
    workdir = Workdir(str(folder), config)
    workdir.write("config.json", json.loads(config.to_json()))
    workdir.write("environment.json", ENVIRONMENT | {"steps": steps})
    (workdir.checkpoints / "4").mkdir(parents=True, exist_ok=True)
    workdir.write("results.json", content)
    lines = [json.dumps({"step": r["step"], "split": "test", **r["protocols"]}) for r in between]
    workdir.write_text("evaluations.jsonl", "".join(f"{line}\n" for line in lines))
    workdir.write_text(PAGE, "")


def run(script, *arguments, variant=""):
    """A script, with the tiny config."""
    command = [sys.executable, f"scripts/{script}", f"--config=tests/tiny.py{variant}", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_ablation_prints_its_table_and_writes_it_into_a_page(tmp_path, data_dir):
    for row, mAPs in {"baseline": (10.0, 20.0), "peb": (12.0, 26.0)}.items():
        config = variants.apply(tiny.get_config(), row)
        config.data.dir = str(data_dir)
        for seed, mAP in enumerate(mAPs):
            config.seed = seed
            end(tmp_path / "runs" / row / f"replica_{seed}", config, results(mAP))
    page = tmp_path / "results.md"
    data = f"--config.data.dir={data_dir}"
    options = f"--workdir={tmp_path / 'runs'}", "--rows=baseline,peb", "--seeds=2", data
    done = run("ablation.py", *options, f"--page={page}")
    assert done.returncode == 2
    assert "has no lines <!-- ablation baseline,peb -->" in done.stderr
    name = "ablation baseline,peb"
    page.write_text(f"before\n<!-- {name} -->\nold\n<!-- end of {name} -->\nafter\n")
    done = run("ablation.py", *options, f"--page={page}")
    assert done.returncode == 0, done.stderr
    row = ["f_ID", "peb", "9.50 ± 4.95", "19.00 ± 9.90", "4.00 ± 2.83", "0.3"]
    (line,) = [line for line in done.stdout.splitlines() if "peb" in line]
    assert line.split("  ")[0] == "f_ID"
    assert all(cell in line for cell in (*row, "60.19 / 58.96", "87.39 / 81.75"))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| {' | '.join(row)} | 60.19 / 58.96 |" in text
    assert "4 steps, 2 seeds. JAX 1.2, Python 3.x, 1 x abacus." in text
    assert (tmp_path / "images" / "baseline_peb.png").read_bytes().startswith(b"\x89PNG")
    done = run("ablation.py", *options[:1], "--rows=basline")
    assert done.returncode == 2
    assert "--rows: unknown variant 'basline'; did you mean 'baseline'" in done.stderr
    place = f"--config.data.dir={data_dir}", "--config.data.heatmaps=none"
    done = run("ablation.py", f"--workdir={tmp_path / 'other'}", *place)
    assert done.returncode == 2
    assert "config.loss.pose would be left out" in done.stderr
    assert not (tmp_path / "other").exists()
    done = run("ablation.py", *options, variant=":peb")
    assert done.returncode == 2
    assert "give --config without peb" in done.stderr


def test_weights_of_losses_are_drawn_over_the_steps(tmp_path, data_dir):
    config = tiny.get_config()
    config.data.dir = str(data_dir)
    config.train.eval_every = 1
    config.replicas.hetero_center = (0.1, 0.0, 0.2, 0.1, 0.1, 0.1, 0.1)
    config.replicas.pose = (5.0, 5.0, 5.0, 0.0, 10.0, 5.0, 5.0)
    config.replicas.distillation = (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 2.0)
    for index, single in enumerate(single_configs(config)):
        folder = tmp_path / "runs" / f"replica_{index}"
        end(folder, single, results(1.0, 30.0 + index), [results(1.0, 20.0, step=2)])
    options = f"--workdir={tmp_path / 'runs'}", f"--config.data.dir={data_dir}", "--times=0,2"
    done = run("loss_weights.py", *options, f"--output={tmp_path / 'out.png'}")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if " mAP " in line]
    assert [(name, float(weight), float(mAP)) for name, weight, _, mAP in lines] == [
        ("hetero_center", 0.0, 31.0), ("hetero_center", 0.1, 30.0), ("hetero_center", 0.2, 32.0),
        ("pose", 0.0, 33.0), ("pose", 5.0, 30.0), ("pose", 10.0, 34.0),
        ("distillation", 0.0, 35.0), ("distillation", 1.0, 30.0), ("distillation", 2.0, 36.0),
    ]  # fmt: skip
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    done = run("loss_weights.py", *options, variant=":baseline")
    assert done.returncode == 2
    assert "config.loss has no distillation, pose: use the variant full" in done.stderr


def test_runs_in_turn_are_shared_with_other_processes(tmp_path, monkeypatch):
    config = tiny.get_config()
    config.replicas.seed = (0, 1, 2)
    singles = single_configs(config)
    end(tmp_path / "replica_0", singles[0], results(1.0))
    end(tmp_path / "replica_2", singles[2], results(1.0), steps=8)  # evaluated half-way
    trained = []

    def fake(own, folder):
        if own.seed == busy:
            raise Busy
        trained.append(own.seed)
        end(folder, own, results(1.0))

    monkeypatch.setattr(train, "train", fake)
    busy = 1
    assert train.train_in_turn(config, str(tmp_path)) is None
    assert trained == [2]
    busy = None
    folders = train.train_in_turn(config, str(tmp_path))
    assert folders == [tmp_path / f"replica_{i}" for i in range(3)]
    assert trained == [2, 1]
    config.evaluation.re_ranking = True
    train.train_in_turn(config, str(tmp_path))
    assert trained == [2, 1, 0, 1, 2]
