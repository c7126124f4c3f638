"""Exported runs: the functions in a process without the package, the weights, the card."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
import untrained

from configs import pose_synthetic, regdb
from vireid_jax.interop import torch_weights
from vireid_jax.training import export, trained
from vireid_jax.types import Modality, UserError

ALONE = """
import sys
sys.modules |= dict.fromkeys(("vireid_jax", "flax"))  # importing either is an error now
import jax, jax.export, numpy
images = numpy.load("images.npy")
for count, name in ((5, "visible"), (2, "infrared")):
    content = open(f"{sys.argv[1]}/{name}.jax_export", "rb").read()
    embed = jax.jit(jax.export.deserialize(bytearray(content)).call)
    numpy.savez(name, **embed(images[:count]))
"""
FIGURES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run and the folder it is exported to."""
    folder = tmp_path_factory.mktemp("export")
    found = trained.load(untrained.run(folder / "run"))
    export.write(found, folder / "exported")
    return found, folder / "exported"


def test_a_process_with_jax_alone_gets_the_same_features(exported, tmp_path):
    found, folder = exported
    images = np.random.default_rng(0).integers(0, 256, (5, *found.size, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", ALONE, str(folder)], cwd=tmp_path, check=True)
    alike = {}
    for modality in Modality:
        expected = jax.jit(found.embed(modality))(found.variables, images)
        with np.load(tmp_path / f"{modality.name.lower()}.npz") as features:
            assert features.keys() == expected.keys() == {"f_ID", "f_ALL"}
            for name, values in expected.items():
                np.testing.assert_allclose(features[name], values[: len(features[name])], atol=1e-4)
        alike[modality] = expected["f_ALL"]
    assert np.abs(np.subtract(*alike.values())).max() > 0.1
    assert np.std(alike[Modality.VISIBLE], 0).max() > 0.1


def test_the_functions_are_for_every_platform(exported):
    found, folder = exported
    for modality in Modality:
        content = (folder / export.file_name(modality)).read_bytes()
        function = jax.export.deserialize(bytearray(content))
        assert function.platforms == ("cpu", "cuda", "tpu")
        (images,) = function.in_avals
        assert str(images.shape) == f"(n, {found.size[0]}, {found.size[1]}, 3)"


def test_the_weights_are_those_of_the_run(exported):
    found, folder = exported
    state = torch_weights.read(folder / export.WEIGHTS)
    again = torch_weights.to_flax(state, found.variables, torch_weights.PUBLISHED)
    jax.tree.map(np.testing.assert_array_equal, again, found.variables)


def results(step, **more):
    figures = {name: {"mean": 12.344, "std": 0.5} for name in FIGURES}
    return {
        "step": step,
        "selection": "last",
        "flip_averaging": False,
        "re_ranking": False,
        "losses": ["identity"],
        "protocols": {"all-seeded": {"f_ID": figures, "trials": 10}},
        "baselines": {"HOG": {"all-seeded": figures}},
        **more,
    }


def card_with(folder, content):
    (folder / "results.json").write_text(json.dumps(content))
    return export.model_card(trained.load(folder))


def test_the_card_has_the_figures_of_its_step_and_what_they_rest_on(tmp_path):
    folder = untrained.run(tmp_path / "run")
    assert "Not evaluated" in export.model_card(trained.load(folder))
    assert "Not evaluated" in card_with(folder, results(step=2))
    card = card_with(folder, results(step=3))
    assert f"| f_ID |{' 12.34 +- 0.50 |' * 6}\n| HOG |{' 12.34 +- 0.50 |' * 6}\n" in card
    assert '{"f_ID": float32 [n, 48], "f_ALL": float32 [n, 96]}' in card
    assert "uint8 [n, 96, 48, 3]" in card
    assert f"jax {jax.__version__}" in card
    assert "split `train` of `synthetic_vi`, tier `tiny`;" in card
    assert "so the weights are under it too" in card
    assert "mirrored" not in card
    card = card_with(folder, results(3, flip_averaging=True, selection="best-on-test"))
    assert "SELECTED ON THE TEST IDENTITIES" in card
    assert "Each is averaged with the mirrored image's" in card
    assert trained.load(folder).flip_averaging


def test_the_card_of_others_data_says_whose_terms_govern(tmp_path):
    config = regdb.get_config("baseline")
    config.model.update(tiny.get_config().model.to_dict() | {"init_from": "resnet50.pth"})
    config.model.pose_branch = config.model.teacher = False
    untrained.save(tmp_path, config)
    card = export.model_card(trained.load(tmp_path))
    assert "made from regdb and of resnet50.pth: the terms under which those were given" in card
    assert "of `regdb`, trial 1;" in card
    assert '{"f_ID": float32 [n, 48]}' in card


def test_the_best_checkpoint_counts_where_the_run_selects_it(tmp_path):
    config = tiny.get_config("baseline")
    untrained.save(tmp_path, config, step=4, seed=1)
    assert trained.load(tmp_path).step == 4
    config.train.selection = "best-on-val"
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(UserError, match=r"no checkpoint in .*best: train first"):
        trained.load(tmp_path)
    untrained.save(tmp_path, config, step=2, seed=2)
    found = trained.load(tmp_path)
    assert found.step == 2
    jax.tree.map(
        np.testing.assert_array_equal, found.variables, untrained.variables(config, seed=2)
    )


def test_what_cannot_be_exported_is_refused(exported, tmp_path):
    found, folder = exported
    with pytest.raises(UserError, match="exists already"):
        export.write(found, folder)
    with pytest.raises(UserError, match="there is no folder"):
        export.write(found, tmp_path / "none" / "exported")
    with pytest.raises(UserError, match="is not the folder of a run"):
        trained.load(tmp_path)
    (tmp_path / "config.json").write_text(pose_synthetic.get_config().to_json())
    with pytest.raises(UserError, match="of a pose teacher"):
        trained.load(tmp_path)
