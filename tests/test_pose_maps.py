"""Heatmap targets by the pose teacher: geometry, averaging, files."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees

from configs import default
from vireid_jax.data import images
from vireid_jax.data.heatmaps import JOINTS, MIRRORED
from vireid_jax.interop import torch_weights
from vireid_jax.interop.fixtures import Rule
from vireid_jax.models import pose_teacher
from vireid_jax.models.layers import Layers
from vireid_jax.training import pose_maps
from vireid_jax.types import UserError

ROOT = Path(__file__).parents[1]
ANY = pose_maps.Teacher({}, 1, 128, (256, 256))


@pytest.fixture
def bright(monkeypatch):
    """A teacher whose map of each joint is the blue channel, and of the last joint the red one."""

    class Bright:
        def __init__(self, layers, stages, width):
            pass

        def apply(self, variables, x):
            b, h, w, _ = x.shape
            cells = x.reshape(b, h // 8, 8, w // 8, 8, 3).mean((2, 4))  # BGR
            maps = jnp.repeat(cells[..., :1], pose_teacher.MAPS, -1)
            return jnp.stack([0 * maps, maps.at[..., 15].set(cells[..., 2])])

    monkeypatch.setattr(pose_teacher, "PoseTeacher", Bright)


@pytest.mark.parametrize(("height", "width"), [(288, 144), (96, 48), (128, 160)])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0, 1.25)])
def test_maps_lie_where_the_image_does(bright, height, width, scales):
    y, x = 0.3 * height, 0.7 * width
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * (0.08 * height) ** 2))
    image = np.full((1, height, width, 3), 128.0)
    image[0, ..., 2] += 127 * spot  # blue; red stays grey
    predict = pose_maps.make_predict(ANY, height, width, scales=scales)
    maps = predict({}, image.astype(np.uint8))
    assert maps.shape == (1, height // 4, width // 4, len(JOINTS))
    assert maps[..., 15].max() < 0.01
    weights = np.asarray(maps[0, ..., 0], np.float64)
    at = [4 * np.arange(n // 4) + 1.5 for n in (height, width)]
    centre = np.array([weights.sum(1) @ at[0], weights.sum(0) @ at[1]]) / weights.sum()
    wanted = np.array([(spot * rows).sum(), (spot * columns).sum()]) / spot.sum()  # cut by borders
    assert centre == pytest.approx(wanted, abs=0.5)


def teacher(stages=1):
    net = pose_teacher.PoseTeacher(Layers(train=False), stages)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    names = torch_weights.to_torch(zeros, torch_weights.GCCPM)
    return {name: Rule("").weight(name, x.shape) for name, x in names.items()}


def test_flip_averaging_commutes_with_a_flip(tmp_path):
    torch_weights.write(tmp_path / "teacher.npz", teacher())
    found = pose_maps.load(tmp_path / "teacher.npz")
    assert (found.stages, found.width, found.size) == (1, 128, (256, 256))
    image = np.random.default_rng(0).integers(0, 256, (2, 96, 48, 3), np.uint8)
    predict = jax.jit(pose_maps.make_predict(found, 96, 48, flip=True))
    maps, mirrored = (predict(found.variables, x) for x in (image, image[:, :, ::-1]))
    assert np.ptp(maps) > 0.1
    np.testing.assert_allclose(maps, mirrored[:, :, ::-1][..., np.array(MIRRORED)], atol=2e-4)


def test_a_file_of_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        pose_maps.load(tmp_path / "none.npz")
    torch_weights.write(tmp_path / "x.npz", {"layer1.0.conv1.weight": np.zeros(1)})
    with pytest.raises(UserError, match="is a torchvision ResNet, not a pose teacher's"):
        pose_maps.load(tmp_path / "x.npz")


@pytest.mark.parametrize("merged", [True, False])
def test_extraction_continues_where_it_was_interrupted(tmp_path, merged):
    pixels = np.random.default_rng(0).integers(0, 256, (29, 16, 8, 3), np.uint8)
    batch = 3 * jax.local_device_count()
    assert batch < len(pixels) - batch

    def predict(variables, images):
        maps = images.reshape(-1, 4, 4, 2, 4, 3).mean((2, 4, 5)) / 255
        return variables * maps[..., None] * jnp.linspace(0.1, 1, 16)

    whole = pose_maps.extract(predict, 1.0, pixels, merged, 3, tmp_path / "whole")
    pose_maps.extract(predict, 1.0, pixels, merged, 3, tmp_path / "part")
    assert whole.shape == (29, 4, 2, 1 if merged else 16)
    means = pixels.reshape(29, 4, 4, 2, 4, 3).mean((2, 4, 5))
    np.testing.assert_allclose(whole[..., -1], means, atol=0.51)
    (tmp_path / "part" / "done.json").write_text(str(batch))
    again = pose_maps.extract(predict, 0.0, pixels, merged, 3, tmp_path / "part")
    np.testing.assert_array_equal(again[:batch], whole[:batch])
    assert not again[batch:].any()


def test_the_script_writes_what_training_reads(tmp_path):
    torch_weights.write(tmp_path / "teacher.safetensors", teacher())
    root = trees.folder(tmp_path / "people", ids=2, images=1)
    options = ["--dataset=folder", f"--source={root}", f"--dir={tmp_path / 'data'}"]
    command = [sys.executable, "scripts/extract_heatmaps.py", *options, "--height=64", "--width=32",
               f"--teacher={tmp_path / 'teacher.safetensors'}", f"--output={tmp_path}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data = default.get_config().data
    data.dataset, data.source, data.dir = "folder", str(root), str(tmp_path / "data")
    data.height, data.width = 64, 32
    data.heatmap_file = str(tmp_path / "folder_merged.npz")
    found = images.load_images(data, "train")
    assert found.heatmaps.shape == (2, 16, 8, 1)
    own = pose_maps.load(tmp_path / "teacher.safetensors")
    maps = pose_maps.make_predict(own, 64, 32)(own.variables, np.asarray(found.images)).max(-1)
    np.testing.assert_allclose(found.heatmaps[..., 0] / 255, maps, atol=0.6 / 255)
    with np.load(data.heatmap_file) as archive:
        assert '"stages": 1' in str(archive["made_by"])
    assert not list(tmp_path.glob("*.partial"))
