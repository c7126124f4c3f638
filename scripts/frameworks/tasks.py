"""What scripts/compare_frameworks.py compares: tasks, their weights and their inputs.

A task is a function (Sizes, rng) -> (task, weights, inputs): what the sides are told, tensors by
published name (or None), arrays by name. A round of it works on `count` things called `unit`.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vireid_jax.evaluation import protocols
from vireid_jax.interop import torch_weights
from vireid_jax.interop.fixtures import Rule
from vireid_jax.models import network, pose_teacher
from vireid_jax.models.layers import Layers
from vireid_jax.types import ImageSet

_PLAIN = {  # of the optimiser: the same rate at every step, low for the same noise again and again
    "optimizer.learning_rate": 1e-4,
    "optimizer.schedule": "constant",
    "optimizer.warmup_epochs": 0.0,
}
_AS_IS = {"crop_pad": 0, "flip": 0.0, "erase": 0.0, "erase_heatmaps": 0.0, "remix": 0.0}
_SYSU = 96, 3803, 6775


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of all tasks.

    Attributes:
      config: of the network and its training.
      ids: N.
      steps: of training in a round.
      batch: images at a time without training.
      batches: of them in a round.
      teacher: stages, width and input size of the pose teacher.
      evaluation: identities, queries and visible images.
      memory: images to load from, ten training batches in a round.
      square: side of the matrices to multiply.
      repeats: of their products in a round.
    """

    config: Any
    ids: int
    steps: int
    batch: int
    batches: int
    teacher: tuple[int, int, tuple[int, int]]
    evaluation: tuple[int, int, int] = _SYSU
    memory: int = 800
    square: int = 2048
    repeats: int = 4

    @property
    def image(self) -> tuple[int, int]:
        """Height and width."""
        return self.config.data.height, self.config.data.width


def _tiny(device):
    widths = {"width": 4, "pose_width": 4, "features": 8, "teacher_features": 16}
    changes = {f"model.{key}": value for key, value in widths.items()}
    config = _config("synthetic", changes | {"batch.identities": 4})
    return Sizes(config, 8, 2, 4, 2, (1, 16, (64, 32)), (6, 60, 90), 40, 256, 2)


def _embedded(device):
    return Sizes(_config("synthetic", {}), 128, 10, 64, 4, (1, 32, (128, 64)))


def _paper(device):
    teacher = 5, 128, (256, 256)
    if device == "cuda":
        return Sizes(_config("default", {}), 395, 20, 256, 10, teacher, square=8192, repeats=20)
    return Sizes(_config("default", {"batch.identities": 2}), 395, 1, 16, 2, teacher)


PRESETS = {"tiny": _tiny, "embedded": _embedded, "paper": _paper}


def _config(name, changes):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(_PLAIN | changes)
    return config


def without_augmentation(config):
    """A task's config, so that both sides get the same images."""
    return config | {"augment": config["augment"] | _AS_IS}


def train(sizes, rng):
    """Steps on one batch of noise."""
    config, (height, width) = sizes.config, sizes.image
    rows = config.batch.identities * config.batch.images
    inputs = {"label": np.arange(config.batch.identities, dtype=np.int32)}
    inputs["label"] = inputs["label"].repeat(config.batch.images)
    for name in ("rgb", "ir"):
        inputs[name] = rng.integers(0, 256, (rows, height, width, 3), np.uint8)
        maps = rng.integers(0, 256, (rows, height // 4, width // 4, 1), np.uint8)
        inputs[f"{name}_heatmap"] = maps
    task = {"steps": sizes.steps, "unit": "images", "count": 2 * rows * sizes.steps}
    return task | _network(sizes), _network_weights(sizes), inputs


def embed(sizes, rng):
    """Features of visible images of noise."""
    task, images = _inference(sizes, rng, sizes.image)
    return task | _network(sizes), _network_weights(sizes), images


def extract(sizes, rng):
    """Heatmaps of images of noise, by the pose teacher."""
    stages, width, size = sizes.teacher
    net = pose_teacher.PoseTeacher(Layers(False), stages, width)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *size, 3)))
    task, images = _inference(sizes, rng, size)
    task |= {"stages": stages, "width": width}
    return task, _random_weights(shapes, torch_weights.GCCPM), images


def evaluate(sizes, rng):
    """Ten trials of SYSU-MM01's protocol, given all similarities."""
    ids, queries, gallery = sizes.evaluation
    pid = np.concatenate([np.arange(queries) % ids, np.arange(gallery) % ids]).astype(np.int32)
    camid = np.concatenate([rng.choice([3, 6], queries), rng.choice([1, 2, 4, 5], gallery)])
    modality = np.repeat([1, 0], [queries, gallery]).astype(np.int32)
    image_set = ImageSet(pid, pid, camid, modality, np.arange(len(pid)).astype(str))
    protocol = protocols.sysu_protocols(image_set)[0]
    features = rng.standard_normal((ids, 256), np.float32)[pid]
    features += 2 * rng.standard_normal(features.shape, np.float32)
    drawn = [trial.gallery - queries for trial in protocol.trials]
    galleries = np.full((len(drawn), max(map(len, drawn))), -1)
    for row, trial in zip(galleries, drawn, strict=True):
        row[: len(trial)] = trial
    inputs = {
        "similarity": features[:queries] @ features[queries:].T,
        "query_pid": pid[:queries],
        "query_camid": camid[:queries],
        "gallery_pid": pid[queries:],
        "gallery_camid": camid[queries:],
        "galleries": galleries,
    }
    count = queries * len(drawn)
    return {"excluded": protocol.excluded, "unit": "queries", "count": count}, None, inputs


def data(sizes, rng):
    """Training batches of images that are in memory."""
    (height, width), batch = sizes.image, sizes.config.batch
    rows = 2 * batch.identities * batch.images
    shape = sizes.memory, height // 4, width // 4, 1
    inputs = {
        "images": rng.integers(0, 256, (sizes.memory, height, width, 3), np.uint8),
        "heatmaps": rng.integers(0, 256, shape, np.uint8),
        "rows": rng.integers(0, sizes.memory, (10, rows)),
    }
    return {"unit": "images", "count": inputs["rows"].size}, None, inputs


def product(sizes, rng):
    """Products of matrices of normal noise: the rate that others are compared with."""
    square = rng.standard_normal((sizes.square, sizes.square), np.float32)
    return {"repeats": sizes.repeats, "operations": 2 * sizes.square**3}, None, {"x": square}


def copy(sizes, rng):
    """Reading and writing an array larger than any cache."""
    square = np.zeros((4 * sizes.square, sizes.square), np.float32)
    return {"repeats": sizes.repeats, "numbers": 2 * square.size}, None, {"x": square}


TASKS = {"train": train, "embed": embed, "extract": extract, "evaluate": evaluate, "data": data}


def _inference(sizes, rng, size):
    count = sizes.batch * sizes.batches
    images = rng.integers(0, 256, (count, *size, 3), np.uint8)
    return {"batch": sizes.batch, "unit": "images", "count": count}, {"images": images}


def _network(sizes):
    return {"config": sizes.config.to_dict(), "ids": sizes.ids}


def _network_weights(sizes):
    config = sizes.config
    net = network.build(config.model, sizes.ids, config.dtype, 1)
    shapes = jax.eval_shape(lambda: network.init(net, jax.random.key(0), *sizes.image))
    return _random_weights(shapes, torch_weights.PUBLISHED)


def _random_weights(shapes, layout):
    """Tensors by published name that keep activations of the order of one."""
    zeros = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)
    names = torch_weights.to_torch(zeros, layout)
    return {name: Rule("").weight(name, x.shape) for name, x in names.items()}
