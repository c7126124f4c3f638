"""Maps of where a network looks: their arithmetic, their gradients, and the pictures of a run."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tiny as tiny_config
import untrained
from PIL import Image

from vireid_jax.evaluation import attention
from vireid_jax.models import network
from vireid_jax.models.layers import Layers
from vireid_jax.models.part_heads import PartHeads, stripes
from vireid_jax.training import step
from vireid_jax.types import Modality, Outputs

ROOT = Path(__file__).parents[1]


def test_grad_cam_by_hand():
    features = np.zeros((2, 1, 2, 2), np.float32)
    features[0, 0] = [[1, 2], [3, 4]]
    gradient = np.zeros_like(features)
    gradient[0, 0] = [[1, -2], [3, 0]]  # means 2 and -1: 2 - 2 = 0 and 6 - 4 = 2
    gradient[1] = -1
    found = attention.grad_cam(features, gradient)
    np.testing.assert_allclose(found, [[[0, 1]], [[0, 0]]])


def small(variant):
    """A small network and its variables."""
    config = tiny_config.get_config(variant)
    net = network.build(config.model, untrained.IDS, "float32", heatmaps=1)
    return net, untrained.variables(config)


def test_each_branch_is_seen_by_its_own_logits():
    net, variables = small("full")
    assert variables.keys() == {"params", "batch_stats"}
    images = np.random.default_rng(1).integers(0, 256, (2, 96, 48, 3), np.uint8)
    apply = step.make_apply(net, variables, images, Modality.INFRARED)
    label = jnp.array([3, -1])
    found = jax.jit(lambda: attention.attention(apply, label))()
    assert found.keys() == {"ReID", "pose"}
    outputs = apply({})
    heads = PartHeads(Layers(train=False), 12, features=8, ids=untrained.IDS)
    of_heads = {kind: own["parts"] for kind, own in variables.items()}

    def score(maps, branch):  # the logits again, from the maps alone
        pooled = jnp.concatenate([stripes(x, 6) for x in maps])
        logits = heads.apply(of_heads, pooled)[1].reshape(2, 6, 2, -1)[branch].sum(0)
        return logits[0, 3] + logits[1].max()

    maps = outputs.F_ID, outputs.F_P
    for branch, name in enumerate(("ReID", "pose")):
        gradient = jax.grad(score)(maps, branch)[branch]
        expected = attention.grad_cam(maps[branch], gradient)
        assert expected.max() == 1
        np.testing.assert_allclose(found[name], expected, atol=1e-4)


def test_without_a_pose_branch_there_is_one_map():
    net, variables = small("baseline")
    images = np.zeros((2, 96, 48, 3), np.uint8)
    apply = step.make_apply(net, variables, images, Modality.VISIBLE)
    assert attention.attention(apply, jnp.array([0, 1])).keys() == {"ReID"}


def test_the_mask_reaches_from_the_lowest_to_the_highest_value():
    mask = np.array([[[0.5, 0.7], [0.6, 0.5]]])[..., None].repeat(3, -1)
    joints = np.full((1, 2, 2, 17), 0.25)
    joints[..., 16] = 1.0  # the background
    outputs = Outputs(None, None, None, None, None, M=jnp.array(mask), heatmap=jnp.array(joints))
    found = attention.keypoints_and_mask(outputs)
    np.testing.assert_allclose(found["M"], [[[0, 1], [0.5, 0]]], atol=1e-6)
    np.testing.assert_allclose(found["H-hat"], 0.25)


def test_pictures_of_two_runs(tiny, tmp_path):
    data_dir = tiny().data.dir
    for variant in ("baseline", "full"):
        untrained.save(tmp_path / variant, tiny(variant))

    def draw(kind, runs, *options):
        output = tmp_path / f"{kind}.png"
        command = [sys.executable, "scripts/visualize.py", kind, "--config=tests/tiny.py"]
        command += [f"--config.data.dir={data_dir}", f"--output={output}", "--images=2", *options]
        folders = ",".join(str(tmp_path / run) for run in runs)
        command += [f"--workdir={folders}"] if runs else []
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done, output

    done, output = draw("attention", ["baseline", "full"])
    assert done.returncode == 0, done.stderr
    with Image.open(output) as sheet:
        assert sheet.width == 8 * 96 + 7 * 4  # an image, one map and two, for both modalities
        assert sheet.height == 2 * 192 + 4 + 28
    done, output = draw("mask", ["full"])
    assert done.returncode == 0, done.stderr
    with Image.open(output) as sheet:
        assert sheet.width == 6 * 96 + 5 * 4
    for kind, runs, message in (
        ("mask", ["baseline"], "mask shows pose branches"),
        ("mask", [], "name them in --workdir"),
        ("attention", ["nowhere"], "is not the folder of a run"),
        ("pose", [], "name its weights in --teacher"),
    ):
        done, _ = draw(kind, runs)
        assert done.returncode == 2
        assert message in done.stderr
