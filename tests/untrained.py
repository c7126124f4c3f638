"""The folder of a run as training leaves it, but for random weights: of seconds, without data."""

import json

import jax
import numpy as np
import tiny

from vireid_jax.models import network
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.state import TrainState
from vireid_jax.training.workdir import Workdir

IDS = 5


def variables(config, seed=0):
    """Random weights for the network of a config."""
    net = network.build(config.model, IDS, config.dtype, heatmaps=1)
    size = config.data.height, config.data.width
    shapes = jax.eval_shape(lambda key: network.init(net, key, *size), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        values = rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return np.float32(1 + 0.1 * values if path[-1].key in ("scale", "var") else values)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def save(folder, config, step=3, seed=0):
    """Adds the checkpoint that counts to a run's folder."""
    best = config.train.selection != "last"
    own = variables(config, seed)
    state = TrainState(np.int32(step), own["params"], own["batch_stats"], ())
    workdir = Workdir(str(folder), config)
    workdir.write("config.json", json.loads(config.to_json()))
    with Checkpoints(workdir.best if best else workdir.checkpoints, best=best) as checkpoints:
        checkpoints.save(state, 1.0)


def run(folder, variant="full"):
    """A run of the tiny experiment with one checkpoint; its folder."""
    save(folder, tiny.get_config(variant))
    return folder
