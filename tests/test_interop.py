"""Weights from and to PyTorch: names, shapes, values, refusals."""

import json
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from vireid_jax.interop import torch_weights
from vireid_jax.interop.fixtures import Rule
from vireid_jax.models import network
from vireid_jax.models.layers import Layers
from vireid_jax.models.pose_teacher import PoseTeacher
from vireid_jax.types import UserError

SHARED = Path(__file__).parents[2] / "shared"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
LEFTOVERS = ("vis_feature", "inf_feature", "visible_classifier", "infrared_classifier")
TABLE = {  # trained parameters of the pose teacher by refinement stages
    1: 11_004_753,
    5: 40_595_281,
}


def reid_shapes(choice="full", ids=395, **model):
    config = default.get_config(choice)
    config.model.update(model)
    net = network.build(config.model, ids, "float32", heatmaps=1)
    images = jax.ShapeDtypeStruct((1, 288, 144, 3), np.float32)
    return jax.eval_shape(lambda key, x: net.init(key, x, x, train=True), jax.random.key(0), images)


def teacher_shapes(stages):
    net = PoseTeacher(Layers(train=False), stages)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(net.init, jax.random.key(0), image)


def zeros(shapes):
    return jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)


def state_of(shapes, layout):
    """A state dict with values of the seeded rule."""
    names = torch_weights.to_torch(zeros(shapes), layout)
    return {name: Rule("").weight(name, x.shape) for name, x in names.items()}


@pytest.fixture(scope="module")
def small():
    """A small network's shapes and a state dict for them."""
    shapes = reid_shapes(ids=5, width=4, pose_width=4, features=8, teacher_features=8)
    return shapes, state_of(shapes, torch_weights.PUBLISHED)


def parameter_count(shapes):
    return sum(x.size for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("stages", TABLE)
def test_the_pose_teacher_has_the_published_size(stages):
    assert parameter_count(teacher_shapes(stages)) == TABLE[stages]


def test_the_network_has_354_trained_tensors():
    names = torch_weights.to_torch(zeros(reid_shapes()), torch_weights.PUBLISHED)
    assert sum(not name.endswith(BUFFERS) for name in names) == 354


@pytest.mark.skipif(not SHARED.is_dir(), reason="the lists of published tensors are not here")
def test_names_and_shapes_are_those_of_the_published_networks():
    official = json.loads((SHARED / "official_state_dict.json").read_text())
    ours = torch_weights.to_torch(zeros(reid_shapes()), torch_weights.PUBLISHED)
    expected = {n: s for n, s in official.items() if not n.startswith(LEFTOVERS)}
    assert {name: list(x.shape) for name, x in ours.items()} == expected

    official = json.loads((SHARED / "gccpm_state_dict.json").read_text())
    ours = torch_weights.to_torch(zeros(teacher_shapes(5)), torch_weights.GCCPM)
    assert {name: list(x.shape) for name, x in ours.items()} == official


def test_there_and_back_is_bit_exact(small):
    shapes, state = small
    variables = torch_weights.to_flax(state, shapes, torch_weights.PUBLISHED)
    again = torch_weights.to_torch(variables, torch_weights.PUBLISHED)
    assert again.keys() == state.keys()
    for name, values in state.items():
        assert again[name].dtype == values.dtype
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_a_pose_teacher_there_and_back_is_bit_exact():
    shapes = teacher_shapes(1)
    state = state_of(shapes, torch_weights.GCCPM)
    assert torch_weights.detect(state) is torch_weights.GCCPM
    variables = torch_weights.to_flax(state, shapes, torch_weights.GCCPM)
    again = torch_weights.to_torch(variables, torch_weights.GCCPM)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_what_does_not_fit_is_listed(small):
    shapes, state = small
    broken = dict(state)
    del broken["shared.conv4.0.weight"]
    broken["shared.conv9.0.weight"] = np.zeros(3)
    broken["classifier3.classifier.1.bias"] = np.zeros(7, np.float32)
    with pytest.raises(UserError) as error:
        torch_weights.to_flax(broken, shapes, torch_weights.PUBLISHED)
    message = str(error.value)
    assert "missing: shared.conv4.0.weight;" in message
    assert "unexpected: shared.conv9.0.weight;" in message
    assert "classifier3.classifier.1.bias [7] instead of [5]" in message


def test_leftovers_of_the_published_network_are_ignored(small):
    shapes, state = small
    more = {f"{name}.weight": np.zeros(2) for name in LEFTOVERS}
    torch_weights.to_flax(state | more, shapes, torch_weights.PUBLISHED)


def test_a_backbone_fills_both_stems_and_leaves_the_rest(small):
    shapes, _ = small
    resnet = state_of({c: {k: t[k] for k in ("streams", "reid")} for c, t in shapes.items()},
                      torch_weights.TORCHVISION)  # fmt: skip
    assert resnet["conv1.weight"].shape == (4, 3, 7, 7)
    resnet["fc.weight"] = np.zeros((1000, 128), np.float32)
    assert torch_weights.detect(resnet) is torch_weights.TORCHVISION
    variables = torch_weights.to_flax(resnet, zeros(shapes), torch_weights.TORCHVISION)
    streams = variables["params"]["streams"]
    jax.tree.map(np.testing.assert_array_equal, streams["rgb"], streams["ir"])
    np.testing.assert_array_equal(
        streams["rgb"]["stem"]["conv1"]["kernel"][..., 1, 2], resnet["conv1.weight"][2, 1]
    )
    assert not any(x.any() for x in jax.tree.leaves(variables["params"]["pose"]))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_keep_every_value(small, tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    torch_weights.write(file, small[1])
    found = torch_weights.read(file)
    assert torch_weights.detect(found) is torch_weights.PUBLISHED
    jax.tree.map(np.testing.assert_array_equal, found, small[1])


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        torch_weights.read(tmp_path / "none.npz")
    (tmp_path / "torn.safetensors").write_bytes(b"12345")
    with pytest.raises(UserError, match=r"torn\.safetensors cannot be read as weights"):
        torch_weights.read(tmp_path / "torn.safetensors")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    with pytest.raises(UserError, match="cannot be read as weights"):
        torch_weights.read(tmp_path / "objects.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match="of no network known here"):
        torch_weights.detect(torch_weights.read(tmp_path / "other.npz"))
    with pytest.raises(UserError, match=r"as \.safetensors or \.npz"):
        torch_weights.write(tmp_path / "x.pth", {})
    with pytest.raises(UserError, match="there is no folder"):
        torch_weights.write(tmp_path / "none" / "x.npz", {})


def test_without_torch_its_files_are_refused_with_the_way_out(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(torch_weights.importlib, "import_module", absent)
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"install torch, or convert it to \.safetensors"):
        torch_weights.read(tmp_path / "model.pth")


class Malicious:
    """Unpickled by Python itself, it would leave a file behind."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path):
    torch = pytest.importorskip("torch")
    trap = tmp_path / "trap"
    torch.save({"net": Malicious(trap)}, tmp_path / "model.t")
    with pytest.raises(UserError, match="cannot be read as weights"):
        torch_weights.read(tmp_path / "model.t")
    (tmp_path / "plain.t").write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(UserError, match="cannot be read as weights"):
        torch_weights.read(tmp_path / "plain.t")
    assert not trap.exists()


def test_a_published_checkpoint_gives_the_features_of_its_weights(small, tmp_path):
    torch = pytest.importorskip("torch")
    shapes, state = small
    tensors = {f"module.{name}": torch.from_numpy(x.copy()) for name, x in state.items()}
    checkpoint = {"net": tensors, "epoch": 3, "mAP": np.float64(0.5), "cmc": np.ones(20)}
    torch.save(checkpoint, tmp_path / "model.t")
    found = torch_weights.read(tmp_path / "model.t")
    model = default.get_config().model
    model.update({"width": 4, "pose_width": 4, "features": 8, "teacher_features": 8})
    net = network.build(model, 5, "float32", heatmaps=1)
    rgb = jnp.asarray(Rule("").image("rgb", 2, 96, 48, 16, 0.5).transpose(0, 2, 3, 1))

    def features(weights):
        variables = torch_weights.to_flax(weights, shapes, torch_weights.PUBLISHED)
        return net.apply(variables, rgb, None, train=False).f_ALL

    np.testing.assert_array_equal(features(found), features(state))


def test_a_torchvision_resnet_gives_the_outputs_of_ours():
    torch = pytest.importorskip("torch")
    nn, functional = torch.nn, torch.nn.functional

    class Bottleneck(nn.Module):
        def __init__(self, channels, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            self.bn3 = nn.BatchNorm2d(4 * width)
            self.downsample = None
            if stride != 1 or channels != 4 * width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(channels, 4 * width, 1, stride, bias=False),
                    nn.BatchNorm2d(4 * width),
                )

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            y = functional.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return functional.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet50(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            channels = 64
            for i, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
                stride = 2 if i in (2, 3) else 1  # the last stage's is taken out
                stage = []
                for j in range(blocks):
                    stage.append(Bottleneck(channels, width, stride if j == 0 else 1))
                    channels = 4 * width
                setattr(self, f"layer{i}", nn.Sequential(*stage))
            self.fc = nn.Linear(2048, 1000)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)))
            x = functional.max_pool2d(x, 3, 2, 1)
            shared = self.layer2(self.layer1(x))
            return shared, self.layer4(self.layer3(shared))

    theirs = ResNet50().eval()
    state = {n: Rule("").weight(n, tuple(x.shape)) for n, x in theirs.state_dict().items()}
    theirs.load_state_dict({n: torch.from_numpy(x) for n, x in state.items()})
    shapes = reid_shapes("baseline", ids=5)
    variables = torch_weights.to_flax(state, zeros(shapes), torch_weights.TORCHVISION)
    net = network.build(default.get_config("baseline").model, 5, "float32", heatmaps=1)
    image = Rule("").image("input", 1, 96, 48, 16, 0.5)
    with torch.no_grad():
        expected = [x.numpy().transpose(0, 2, 3, 1) for x in theirs(torch.from_numpy(image))]
    outputs = net.apply(variables, None, image.transpose(0, 2, 3, 1), train=False)
    for ours, reference in zip((outputs.F_S, outputs.F_id2), expected, strict=True):
        error = np.linalg.norm(ours - reference) / np.linalg.norm(reference)
        assert error < 1e-5
