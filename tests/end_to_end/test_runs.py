"""Whole runs of the tiny experiment: what they write, repeated, interrupted, refused."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tiny import TINY

from configs import regdb
from vireid_jax.data import loader
from vireid_jax.data.synthetic import tiers
from vireid_jax.evaluation import features, protocols
from vireid_jax.training import export, train
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.signals import StopRequest
from vireid_jax.training.workdir import Workdir, read_lines
from vireid_jax.types import Modality, UserError

ROOT = Path(__file__).parents[2]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """TensorBoard's scalars, {(tag, step): value}, and the steps at which a run went on."""
    scalars, restarts = {}, []
    for file in (folder / "tensorboard").iterdir():
        rest = file.read_bytes()
        while rest:  # records of length, checksum, event, checksum
            end = 12 + int.from_bytes(rest[:8], "little")
            event = Event.FromString(rest[12:end])
            scalars |= {(x.tag, event.step): x.simple_value for x in event.summary.value}
            restarts += [event.step] if event.HasField("session_log") else []
            rest = rest[end + 4 :]
    return scalars, restarts


def final_state(config, folder):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore(Experiment(config).abstract_state())


def assert_ends_alike(config, folder, results, again):
    """Trains in `again` and compares with the run in `folder`, to the bit."""
    assert train.train(config, str(again)) == results
    assert lines(again) == lines(folder)
    jax.tree.map(
        np.testing.assert_array_equal, final_state(config, folder), final_state(config, again)
    )


@pytest.fixture(scope="module")
def uninterrupted(tiny, tmp_path_factory):
    """The folder and the results of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    return folder, train.train(tiny(), str(folder))


@pytest.fixture
def finished(tiny, uninterrupted, tmp_path):
    """That run, in a folder of the test's own: config, folder and results."""
    folder, results = uninterrupted
    return tiny(), shutil.copytree(folder, tmp_path / "run"), results


def test_a_run_writes_what_it_promises(finished):
    config, folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    assert results["dataset"] == "synthetic_vi"
    assert results["config"] == "synthetic:full"
    assert (results["step"], results["selection"]) == (4, "last")
    assert (results["flip_averaging"], results["re_ranking"]) == (False, False)
    assert results["losses"] == ["distillation", "hetero_center", "identity", "pose"]
    measured = results["protocols"]["all-seeded"]
    assert measured.keys() == {"f_ID", "f_ALL", "trials"}
    assert measured["trials"] == 10
    figures = {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
    for feature in ("f_ID", "f_ALL"):
        assert measured[feature].keys() == figures
        for value in measured[feature].values():
            assert 0 < value["mean"] <= 100
            assert value["std"] >= 0
    assert results["baselines"].keys() == {"chance", "colour histogram", "HOG", "LDA on HOG"}

    logged = lines(folder)
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    weights = {name: config.loss[name].weight for name in results["losses"]}
    for line in logged:
        assert line["loss"] == pytest.approx(
            sum(weight * line[name] for name, weight in weights.items()), rel=1e-5
        )
    assert json.loads((folder / "config.json").read_text()) == json.loads(config.to_json())
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["devices"] == 4
    assert environment["data"].keys() == {"train", "test"}
    scalars, restarts = events(folder)
    assert restarts == [1]
    for line in logged:
        for name in results["losses"]:
            assert scalars[f"train/{name}", line["step"]] == pytest.approx(line[name])
    assert not list(folder.glob("*.partial"))


def test_the_same_run_twice_is_the_same_to_the_bit(finished, tmp_path):
    config, folder, results = finished
    assert_ends_alike(config, folder, results, tmp_path / "again")


def test_an_interrupted_run_ends_as_if_it_had_not_been(finished, tiny, tmp_path, monkeypatch):
    config, folder, results = finished
    whole = loader.iterate

    def broken(batches, start, place):
        for step, batch in enumerate(whole(batches, start, place), start + 1):
            if step == 4:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loader, "iterate", broken)
    with pytest.raises(KeyboardInterrupt):
        train.train(tiny(), str(tmp_path / "again"))
    with Checkpoints(tmp_path / "again" / "checkpoints") as checkpoints:
        assert checkpoints.latest == 2
    monkeypatch.setattr(loader, "iterate", whole)
    assert_ends_alike(config, folder, results, tmp_path / "again")


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def number(request):
    """A signal that is not ignored, however this process was started."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_saves_and_the_same_command_continues(
    finished, tmp_path, monkeypatch, capsys, number
):
    config, folder, results = finished
    config.train.checkpoint_every = 100
    whole = loader.iterate

    def signalled(batches, start, place):
        for step, batch in enumerate(whole(batches, start, place), start + 1):
            if step == 3:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(loader, "iterate", signalled)
    with pytest.raises(SystemExit) as ended:
        train.train(config, str(tmp_path / "again"))
    assert ended.value.code == 128 + number
    assert f"{number.name}: saved after step 3" in capsys.readouterr().out
    assert signal.getsignal(number) == signal.default_int_handler
    monkeypatch.setattr(loader, "iterate", whole)
    assert_ends_alike(config, folder, results, tmp_path / "again")


@pytest.mark.parametrize("kinds", [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT")])
def test_a_second_signal_ends_at_once(kinds):
    first, second = (int(signal.Signals[kind]) for kind in kinds)
    script = f"""
import os, signal
from vireid_jax.training.signals import StopRequest
signal.signal(signal.SIGINT, signal.default_int_handler)  # however this process was started
with StopRequest() as stop:
    os.kill(os.getpid(), {first})
    print(stop.number, flush=True)
    os.kill(os.getpid(), {second})
    print("still here")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-second, f"{first}\n")


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.number == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_runs_in_one_folder_are_refused(finished):
    config, folder, results = finished
    with Workdir(str(folder), config).alone():
        with pytest.raises(UserError, match=r"another run works in .*: wait for it, or use"):
            train.train(config, str(folder))
        assert train.evaluate(config, str(folder)) == results
    assert train.train(config, str(folder)) == results


def test_a_changed_config_is_listed_and_taken_where_allowed(finished, capsys):
    config, folder, _ = finished
    config.train.steps, config.optimizer.learning_rate = 5, 1e-4
    results = train.train(config, str(folder), allow_config_change=True)
    shown = capsys.readouterr().out
    assert "another config: config.optimizer.learning_rate, config.train.steps" in shown
    assert results["step"] == 5
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5]
    assert json.loads((folder / "config.json").read_text()) == json.loads(config.to_json())


def test_evaluating_a_run_repeats_its_results(finished):
    config, folder, results = finished
    (folder / "results.json").unlink()
    assert train.evaluate(config, str(folder)) == results
    assert json.loads((folder / "results.json").read_text()) == results


def test_evaluations_during_a_run_do_not_change_it(finished, tmp_path, tiny):
    _, folder, results = finished
    config = tiny()
    config.train.eval_every = 2
    assert train.train(config, str(tmp_path / "again")) == results
    assert lines(tmp_path / "again") == lines(folder)
    (between,) = read_lines(tmp_path / "again" / "evaluations.jsonl")
    assert (between["step"], between["split"]) == (2, "test")
    assert between["all-seeded"].keys() == results["protocols"]["all-seeded"].keys()
    assert between["all-seeded"] != results["protocols"]["all-seeded"]


def test_the_best_on_validation_identities_is_reported(tiny, tmp_path, monkeypatch, capsys):
    three = dataclasses.replace(
        TINY, name="three", splits=(("train", 6), ("val", 4), ("test", 4)), first_person=94_001
    )
    monkeypatch.setitem(tiers.TIERS, three.name, three)
    config = tiny("baseline")
    config.data.tier, config.data.train_split = three.name, "train+val"
    config.train.selection, config.train.eval_every = "best-on-val", 1
    with pytest.raises(UserError, match=r"give --config\.data\.train_split=train"):
        train.train(config, str(tmp_path / "run"))
    config.data.train_split = "train"
    scores = {}

    def scored(experiment, state, whole=Experiment.score):
        split = set(experiment.selection_set.pid.tolist())
        assert not split & set(experiment.train_set.pid.tolist() + experiment.test_set.pid.tolist())
        scores[int(state.step)], results = whole(experiment, state)
        return scores[int(state.step)], results

    monkeypatch.setattr(Experiment, "score", scored)
    results = train.train(config, str(tmp_path / "run"))
    assert list(scores) == [1, 2, 3, 4]
    assert results["selection"] == "best-on-val"
    assert results["step"] == max(scores, key=scores.get)
    assert "selected on the validation identities" in capsys.readouterr().out
    assert train.evaluate(config, str(tmp_path / "run")) == results

    def killed(experiment, state):
        if int(state.step) == 2:
            raise KeyboardInterrupt
        return scored(experiment, state)

    monkeypatch.setattr(Experiment, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path / "again"))
    monkeypatch.setattr(Experiment, "score", scored)
    assert train.train(config, str(tmp_path / "again")) == results
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data"].keys() == {"train", "test", "val"}


def test_the_best_on_test_identities_is_labelled_as_such(tiny, finished, tmp_path, capsys):
    config, _, last = finished
    config.train.selection, config.train.eval_every = "best-on-test", 2
    results = train.train(config, str(tmp_path / "best"))
    assert results["selection"] == "best-on-test"
    assert "SELECTED ON THE TEST IDENTITIES" in capsys.readouterr().out
    own, others = (r["protocols"]["all-seeded"]["f_ALL"]["mAP"]["mean"] for r in (results, last))
    assert own >= others
    assert (results["step"] == 4) == (own == others)
    assert (tmp_path / "best" / "best" / str(results["step"])).is_dir()


def test_flip_averaging_and_re_ranking_are_stamped(finished, capsys):
    config, folder, results = finished
    config.evaluation.flip_averaging, config.evaluation.re_ranking = True, True
    config.evaluation.shots = (1, 10)
    again = train.evaluate(config, str(folder))
    assert (again["flip_averaging"], again["re_ranking"]) == (True, True)
    assert again["protocols"].keys() == {"all-seeded", "all-seeded-multi10"}
    assert again["protocols"]["all-seeded"] != results["protocols"]["all-seeded"]
    assert again["baselines"]["HOG"]["all-seeded"] == results["baselines"]["HOG"]["all-seeded"]
    shown = capsys.readouterr().out
    assert "RE-RANKED" in shown
    assert "averaged with those of the mirrored images" in shown


def test_a_model_of_one_trial_is_not_tested_on_another(tmp_path):
    of_three, of_four = (regdb.get_config() for _ in range(2))
    of_three.data.trial, of_four.data.trial = 3, 4
    Workdir(str(tmp_path), of_three).write("config.json", json.loads(of_three.to_json()))
    with pytest.raises(UserError, match=r"another config; these keys differ: config\.data\.trial"):
        train.evaluate(of_four, str(tmp_path))


def test_runs_are_aggregated_once_each_and_only_with_their_like(finished, tmp_path):
    config, folder, results = finished
    others = [shutil.copytree(folder, tmp_path / name) for name in ("run_1", "run_2")]
    better = json.loads((folder / "results.json").read_text())
    better["protocols"]["all-seeded"]["f_ID"]["mAP"]["mean"] += 2
    (others[1] / "results.json").write_text(json.dumps(better))

    def aggregate(pattern):
        command = [sys.executable, "scripts/aggregate.py", pattern, f"--output={tmp_path / 'out'}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert "have the same trial and seed: name each once" in aggregate(f"{tmp_path}/run_*").stderr
    config.seed, config.data.heatmap_file = 1, "other.npz"
    (others[1] / "config.json").write_text(config.to_json())
    assert "no common mean: config.data.heatmap_file" in aggregate(f"{tmp_path}/run_*").stderr
    config.data.trial = 2  # which has heatmaps of its own
    (others[1] / "config.json").write_text(config.to_json())
    assert aggregate(f"{others[0]},{others[1]}").returncode == 0
    found = json.loads((tmp_path / "out").read_text())["protocols"]["all-seeded"]
    mean = results["protocols"]["all-seeded"]["f_ID"]["mAP"]["mean"]
    assert found["f_ID"]["mAP"] == pytest.approx({"mean": mean + 1, "std": 1})
    assert found["trials"] == 2
    better |= {"re_ranking": True, "step": better["step"] - 1}
    (others[1] / "results.json").write_text(json.dumps(better))
    assert "were evaluated differently (re_ranking, step)" in aggregate(f"{tmp_path}/run_*").stderr
    config.optimizer.learning_rate, config.model.init_from = 1.0, "resnet50.pth"
    (others[1] / "config.json").write_text(config.to_json())
    done = aggregate(f"{tmp_path}/run_*")
    assert done.returncode == 2
    keys = "config.model.init_from, config.optimizer.learning_rate"
    assert f"no common mean: {keys}" in done.stderr


def test_a_variant_logs_its_own_terms_and_reports_its_own_features(tiny, tmp_path):
    results = train.train(tiny("baseline"), str(tmp_path))
    terms = {"identity", "hetero_center"}
    assert lines(tmp_path)[-1].keys() == terms | {"step", "loss", "learning_rate"}
    assert results["protocols"]["all-seeded"].keys() == {"f_ID", "trials"}


def test_without_heatmaps_the_pose_loss_is_off(tiny, tmp_path, capsys):
    config = tiny()
    config.data.heatmaps = "none"
    results = train.train(config, str(tmp_path))
    assert "training without L_pose" in capsys.readouterr().out
    assert results["losses"] == ["distillation", "hetero_center", "identity"]
    assert "pose" not in lines(tmp_path)[-1]


def test_a_folder_of_another_config_is_refused(finished):
    config, folder, _ = finished
    config.train.steps = 9
    config.optimizer.learning_rate = 1.0
    with pytest.raises(UserError, match=r"config\.optimizer\.learning_rate, config\.train\.steps"):
        train.train(config, str(folder))


def test_where_data_lie_and_how_often_it_writes_may_change(finished, tmp_path):
    config, folder, results = finished
    config.data.dir = str(shutil.copytree(config.data.dir, tmp_path / "moved"))
    config.train.log_every, config.train.checkpoint_every, config.evaluation.batch = 2, 4, 4
    assert train.evaluate(config, str(folder)) == results


def test_a_run_exported_to_torch_names_evaluates_alike(finished, tmp_path):
    config, folder, results = finished
    file = tmp_path / "weights.safetensors"
    command = [sys.executable, "scripts/convert_weights.py", str(folder), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "a published VI-ReID checkpoint" in done.stdout
    config.model.init_from = str(file)
    again = train.evaluate(config, str(tmp_path / "from_weights"))
    assert again == results | {"step": 0}


def test_an_exported_run_has_the_features_that_were_evaluated(finished, tmp_path):
    config, folder, results = finished
    command = [sys.executable, "scripts/export.py", str(folder), str(tmp_path / "exported")]
    subprocess.run(command, cwd=ROOT, check=True)
    functions = {
        modality: jax.export.deserialize(
            bytearray((tmp_path / "exported" / export.file_name(modality)).read_bytes())
        )
        for modality in Modality
    }
    experiment = Experiment(config)
    found = features.extract(
        {m: partial(map, jax.jit(lambda x, f=f: f.call(*x))) for m, f in functions.items()},
        experiment.test_set,
        batch=8,
    )
    measured = protocols.evaluate(found, experiment.test_set, experiment.protocols)
    for name in ("f_ID", "f_ALL"):
        for figure, value in measured["all-seeded"][name].items():
            assert value == pytest.approx(results["protocols"]["all-seeded"][name][figure])
    assert f"{value['mean']:.2f} +- " in (tmp_path / "exported" / "README.md").read_text()


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    config = tiny()
    file = tmp_path / "weights.npz"
    np.savez(file, **{"visible_net.b1.0.weight": np.zeros((4, 3, 7, 7), np.float32)})
    config.model.init_from = str(file)
    with pytest.raises(UserError, match=r"does not fit this network; missing: .*shared\.b1"):
        train.train(config, str(tmp_path / "run"))
    np.savez(file, **{"cpm.0.0.weight": np.zeros((256, 512, 3, 3), np.float32)})
    with pytest.raises(UserError, match=r"is a GCCPM pose checkpoint, where a published"):
        train.train(config, str(tmp_path / "run"))
    np.savez(file, **{"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)})
    with pytest.raises(UserError, match=r"is a torchvision ResNet, where a published"):
        train.evaluate(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_without_checkpoint_cannot_be_evaluated(tiny, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*--mode=train"):
        train.evaluate(tiny(), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_run_is_told_apart_by_steps_stripes_and_cameras(finished, data_dir):
    _, folder, _ = finished
    options = "--config=tests/tiny.py", f"--config.data.dir={data_dir}", f"--workdir={folder}"
    command = [sys.executable, "scripts/diagnose.py", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[1:5]] == ["1", "2", "3", "4"]
    assert [row[0] for row in rows[7:9]] == ["f_ID", "f_P"]
    cameras = [f"visible {c}" for c in (1, 2)] + [f"infrared {c}" for c in (3, 6)]
    pairs = {(a, b) for a in cameras for b in cameras if a != b}
    assert {(" ".join(row[:2]), " ".join(row[3:5])) for row in rows[-12:]} == pairs


def test_a_run_has_ended_by_the_options_it_was_last_evaluated_by(finished, monkeypatch):
    config, folder, _ = finished
    assert Workdir(str(folder), config).ended
    averaged = config.copy_and_resolve_references()
    averaged.evaluation.flip_averaging = True
    assert not Workdir(str(folder), averaged).ended
    train.evaluate(averaged, str(folder))
    assert Workdir(str(folder), averaged).ended
    assert not Workdir(str(folder), config).ended

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "features", killed)
    with pytest.raises(KeyboardInterrupt):
        train.evaluate(config, str(folder))
    assert not Workdir(str(folder), config).ended


def test_a_finished_run_repeated_evaluates_again(finished):
    config, folder, results = finished
    assert train.train(config, str(folder)) == results
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4]


def test_a_run_on_other_data_is_refused(finished):
    config, folder, _ = finished
    environment = json.loads((folder / "environment.json").read_text())
    environment["data"]["train"] = "another"
    (folder / "environment.json").write_text(json.dumps(environment))
    for mode in (train.train, train.evaluate):
        with pytest.raises(UserError, match="is of a run on other data"):
            mode(config, str(folder))


@pytest.mark.parametrize(("every", "what"), [(2, r"loss at step \d is"), (1, "parameters after")])
def test_what_is_not_finite_stops_the_run_and_is_not_saved(tiny, tmp_path, every, what):
    config = tiny()
    config.optimizer.learning_rate = float("inf")
    config.train.checkpoint_every = every
    with pytest.raises(UserError, match=rf"{what}.* not finite.*lower config\.optimizer"):
        train.train(config, str(tmp_path))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dtype", "bf16", "did you mean 'bfloat16'"),
        ("seed", -1, "must be 0 or more"),
        ("batch.images", 0, "config.batch.images=0 must be 1 or more"),
        ("train.log_every", 0, "config.train.log_every=0 must be 1 or more"),
        ("data.protocol", "sysuu", "did you mean 'sysu'"),
        ("data.protocol", "regdb", "tier tiny is evaluated with --config.data.protocol=sysu"),
        ("model.blocks", (1, 1, 1), "must have 4 numbers"),
        ("model.teacher", False, "config.loss.distillation needs config.model.teacher=True"),
        ("loss.distillation.detach_teacher", True, "config.loss.teacher_identity.weight"),
        ("model.backbone", "resnett", "did you mean 'resnet'"),
        ("loss.pose.form", "meen", "did you mean 'mean'"),
        ("train.selection", "best-on-vla", "did you mean 'best-on-val'"),
        ("train.selection", "best-on-val", "needs config.train.eval_every"),
        ("evaluation.galleries", ("offical",), "did you mean 'official'"),
        ("evaluation.galleries", (), "must name each choice once"),
        ("evaluation.galleries", ("official",), "rand_perm_cam.mat, which"),
        ("evaluation.shots", (1, 0), "must be 1 or more"),
        ("optimizer.schedule", "steps", "did you mean 'step'"),
        ("optimizer.rule", "sdg", "did you mean 'sgd'"),
        ("data.heatmap_file", "nowhere.npz", "nowhere.npz does not exist"),
        ("model.init_from", "nowhere.pth", "nowhere.pth does not exist"),
    ],
)
def test_values_that_cannot_work_are_refused_before_the_folder_exists(
    tiny, tmp_path, key, value, message
):
    config = tiny()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        train.train(config, str(tmp_path / "none"))
    assert message in str(error.value)
    assert not (tmp_path / "none").exists()


def test_too_many_identities_leave_no_folder(tiny, tmp_path):
    config = tiny()
    config.batch.identities = 8
    with pytest.raises(UserError, match=r"config\.batch\.identities=8.*use at most 6"):
        train.train(config, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/synthetic.py:fulll"], "'fulll'; did you mean 'full'"),
        (["--config=configs/synthetic.py:peb,full"], "exclude each other"),
        (["--config=configs/synthetic.py", "--config.train.stepz=3"], "did you mean 'steps'"),
        (["--config=configs/synthetic.py", "--config.trian.steps=3"], "did you mean 'train'"),
        (["--config=configs/synthetic.py", "--config.data.height=100"], "use 96"),
        (["--config=configs/synthetik.py"], "configs/synthetik.py"),
        (
            ["--config=configs/regdb.py", "--config.data.dir=nowhere"],
            "give --config.data.source=DIR",
        ),
        (["--config=configs/synthetic.py", "--mode=trian"], "train"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(arguments, message, tmp_path):
    command = [sys.executable, "main.py", f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["", "elsewhere"])
def test_compiled_programs_are_kept_where_the_user_says_or_in_the_usual_place(tmp_path, given):
    script = (
        "import jax; from vireid_jax import command_line; "
        "command_line.run(lambda: print(jax.config.jax_compilation_cache_dir))"
    )
    places = {"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": given}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, env=os.environ | places, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (given or str(tmp_path / "vireid_jax"))


def test_a_folder_that_cannot_be_written_is_named(data_dir, tmp_path):
    (tmp_path / "file").touch()  # root may write in any folder, but not below a file
    folder = tmp_path / "file" / "run"
    command = [sys.executable, "main.py", "--config=tests/tiny.py", f"--workdir={folder}"]
    command.append(f"--config.data.dir={data_dir}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("error: ")
    assert str(folder) in last
    assert "Traceback" not in done.stderr
