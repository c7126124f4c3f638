"""Our side of scripts/compare_frameworks.py: `python ours.py check|time FOLDER`.

See scripts/torch_twin/run.py.
"""

import contextlib
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import smooth
from vireid_jax import losses
from vireid_jax.data import augment, loader
from vireid_jax.evaluation import ranking
from vireid_jax.interop import torch_weights
from vireid_jax.models import convolution, gpu_convolution, network, pose_teacher
from vireid_jax.models.layers import Layers
from vireid_jax.training import optimizer, pose_step, step
from vireid_jax.training.devices import Devices, keep_memory
from vireid_jax.training.state import TrainState
from vireid_jax.types import Batch, ImageSet, Modality

_MANY = 100_000  # batches, more than all rounds take


class Train:
    """Training steps, as `training.train` takes them."""

    def __init__(self, task, weights, inputs):
        """Places the state on the device."""
        self._task, self._config = task, ConfigDict(task["config"])
        config = self._config
        self._devices = Devices(1)
        net = _network(task, config, self._devices.axis)
        rate = optimizer.schedule(config.optimizer, 1, 1)
        self._rule = optimizer.build(config.optimizer, rate)
        if _checked(task):
            self._rule = optax.chain(optax.trace(0.0), self._rule)  # which holds the gradients
        function = step.make_train_step(
            net, losses.build(config.loss.to_dict()), self._rule, rate, config.augment.to_dict(),
            config.seed, self._devices.axis,
        )  # fmt: skip
        self._step = self._devices.train_step(function)
        self._batch = Batch(**inputs)
        self._batches = loader.iterate([self._batch] * _MANY, 0, self._devices.place)
        self._state = self._at_step_0(net, weights)

    def _at_step_0(self, net, weights):
        data = self._config.data
        variables = placed(weights, _shapes(net, data), torch_weights.PUBLISHED)
        params = variables["params"]
        state = TrainState(jnp.int32(0), params, variables["batch_stats"], self._rule.init(params))
        return self._devices.replicate(state)

    def check(self):
        """Losses of two steps, gradients of the first, parameters and statistics after both."""
        batch = self._devices.place(self._batch)
        state, metrics = self._step(self._state, batch)
        found = {f"losses/{name}": x for name, x in jax.device_get(metrics).items()}
        found |= published("gradients", {"params": state.opt_state[0].trace})
        state, metrics = self._step(state, batch)
        metrics = jax.device_get(metrics)
        found |= {f"second losses/{name}": x for name, x in metrics.items()}
        found |= published("parameters", {"params": state.params})
        found |= published("statistics", {"batch_stats": state.batch_stats})
        return {name: x for name, x in found.items() if "learning_rate" not in name}

    def round(self):
        """Some steps; nothing is fetched before the last one's loss."""
        for _ in range(self._task["steps"]):
            self._state, metrics = self._step(self._state, next(self._batches))
        return float(metrics["loss"])


class Embed:
    """Features f_ID and f_ALL, as `Experiment` computes them."""

    def __init__(self, task, weights, inputs):
        """Places the variables on the device."""
        self._task, self._images = task, inputs["images"]
        config = ConfigDict(task["config"])
        devices = Devices(1)
        net = _network(task, config)
        variables = placed(weights, _shapes(net, config.data), torch_weights.PUBLISHED)
        self._variables = devices.replicate(variables)
        self._embed = {
            modality: devices.embed(step.make_embed(net, modality, grey=config.augment.grey))
            for modality in Modality
        }

    def _run(self, modality, images):
        embed = partial(self._embed[modality], self._variables)
        return in_batches(self._task, embed, images)

    def check(self):
        """Of one batch, of both modalities."""
        return {
            f"outputs/{name}, {modality.name.lower()}": x
            for modality in Modality
            for name, x in self._run(modality, self._images[: self._task["batch"]]).items()
        }

    def round(self):
        """Of visible images."""
        return self._run(Modality.VISIBLE, self._images)


class Extract:
    """Heatmaps of the last stage of the pose teacher, as `pose_maps` predicts them."""

    def __init__(self, task, weights, inputs):
        """Places the variables on the device."""
        self._task, self._images = task, inputs["images"]
        layers = Layers(False, jnp.dtype(task["dtype"]), conv_general_dilated=_convolution(task))
        net = pose_teacher.PoseTeacher(layers, task["stages"], task["width"])
        images = jax.ShapeDtypeStruct(self._images[:1].shape, jnp.float32)
        shapes = jax.eval_shape(net.init, jax.random.key(0), images)
        devices = Devices(1)
        self._variables = devices.replicate(placed(weights, shapes, torch_weights.GCCPM))
        self._predict = devices.embed(
            lambda v, x: {"maps": net.apply(v, pose_step.normalise(x))[-1]}
        )

    def _run(self, images):
        return in_batches(self._task, partial(self._predict, self._variables), images)

    def check(self):
        """Maps of one batch."""
        found = self._run(self._images[: self._task["batch"]])
        return {f"outputs/{name}": x for name, x in found.items()}

    def round(self):
        """All maps."""
        return self._run(self._images)


class Evaluate:
    """Rankings of all trials."""

    def __init__(self, task, weights, inputs):
        """Takes the similarities of queries and gallery images apart by trial."""
        self._excluded = task["excluded"]
        self._query = inputs["query_pid"], inputs["query_camid"]
        self._trials = [
            (
                inputs["similarity"].take(rows, axis=1),
                inputs["gallery_pid"][rows],
                inputs["gallery_camid"][rows],
            )
            for rows in (trial[trial >= 0] for trial in inputs["galleries"])
        ]

    def check(self):
        """Of each trial."""
        found = {}
        for i, ranked in enumerate(self.round()):
            found |= {f"outputs/{name} {i}": getattr(ranked, name) for name in ("ap", "inp", "cmc")}
        return found

    def round(self):
        """Of each trial."""
        return [self._rank(*trial) for trial in self._trials]

    def _rank(self, similarity, gallery_pid, gallery_camid):
        pid, camid = self._query
        valid = ranking.camera_mask(camid, gallery_camid, self._excluded)
        return ranking.rank(similarity, pid, gallery_pid, valid=valid, cmc_on="identities")


class Data:
    """Training batches, as the loader gathers them."""

    def __init__(self, task, weights, inputs):
        """Makes a set of the images."""
        none = np.zeros(len(inputs["images"]), np.int32)
        images = ImageSet(inputs["images"], none, none, none, none, inputs["heatmaps"])
        half = inputs["rows"].shape[1] // 2
        plan = [(none[:half], row[:half], row[half:]) for row in inputs["rows"]]
        self._batches = loader.Batches(images, plan, len(plan))

    def check(self):
        """The first batch, normalised."""
        first = self._batches[0]
        images = augment.normalise(np.concatenate([first.rgb, first.ir]))
        return {"outputs/images": images}

    def round(self):
        """All batches."""
        for i in range(len(self._batches)):
            self._batches[i]


class Product:
    """Products of square matrices."""

    def __init__(self, task, weights, inputs):
        """Places the matrix on the device."""
        self._x = jax.device_put(inputs["x"].astype(jnp.dtype(task["dtype"])))
        self._repeats, self._run = task["repeats"], jax.jit(self.function)

    @staticmethod
    def function(x):
        """One."""
        return x @ x

    def round(self):
        """Some, each done before the next one begins."""
        for _ in range(self._repeats):
            y = self._run(self._x)
        y.block_until_ready()


class Copy(Product):
    """Sums of an array and a number, which read and write all of it."""

    @staticmethod
    def function(x):
        """One."""
        return x + 1


TASKS = {
    "train": Train,
    "embed": Embed,
    "extract": Extract,
    "evaluate": Evaluate,
    "data": Data,
    "product": Product,
    "copy": Copy,
}


def _network(task, config, axis_name=None):
    net = network.build(config.model, task["ids"], task["dtype"], 1, axis_name)
    return net.clone(conv_general_dilated=_convolution(task))


def _convolution(task):
    """A run's; a GPU's for half precision, which is timed, is checked in every precision."""
    everywhere = task["device"] == "cuda" and _checked(task)
    return gpu_convolution.in_other_words if everywhere else convolution.for_backend()


def _checked(task):
    """Whether it is compared, in the precisions it names, and not timed."""
    return "kinds" in task


def _shapes(net, data):
    return jax.eval_shape(lambda: network.init(net, jax.random.key(0), data.height, data.width))


def placed(weights, shapes, layout):
    """Variables with `weights`, in float64 where the run computes in it."""
    variables = torch_weights.to_flax(weights, shapes, layout)
    return jax.tree.map(
        lambda x: np.asarray(x, float if jax.config.jax_enable_x64 else x.dtype), variables
    )


def published(stage, tree):
    """A tree's arrays by published name, without counters."""
    state = torch_weights.to_torch(jax.device_get(tree), torch_weights.PUBLISHED)
    return {f"{stage}/{name}": x for name, x in state.items() if "num_batches" not in name}


def in_batches(task, function, images):
    """{name: results of all batches side by side}, on the host."""
    size = task["batch"]
    found = list(function(images[i : i + size] for i in range(0, len(images), size)))
    return {name: np.concatenate([x[name] for x in found]) for name in found[0]}


def main(verb, folder):
    """Checks, or works on demand."""
    folder = Path(folder)
    task = json.loads((folder / "task.json").read_text())
    jax.config.update("jax_platforms", task["device"])
    keep_memory(task["keep_memory"])
    weights = folder / "weights.npz"
    weights = torch_weights.read(weights) if weights.exists() else None
    inputs = {file.stem: np.load(file) for file in (folder / "inputs").glob("*.npy")}
    {"check": check, "time": work_on_demand}[verb](task, weights, inputs, folder)


def check(task, weights, inputs, folder):
    """Writes FOLDER/jax_KIND.npz."""
    jax.config.update("jax_default_matmul_precision", "highest")
    for kind, options in task["kinds"].items():
        gates = smooth.gates() if options["smooth"] else contextlib.nullcontext()
        with gates, jax.enable_x64(options["dtype"] == "float64"):
            work = TASKS[task["mode"]](task | options, weights, inputs)
            np.savez(folder / f"jax_{kind}.npz", **work.check())
    answer({})


def work_on_demand(task, weights, inputs, folder):
    """Works and answers with the seconds; for each line read works untimed, and again timed."""
    work = TASKS[task["mode"]](task, weights, inputs)
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    versions["device"] = jax.devices()[0].device_kind
    answer(timed(work.round) | {"versions": versions})
    for _ in sys.stdin:
        work.round()  # what the other side did has taken caches and memory
        answer(timed(work.round) | {"peak": peak(task["device"])})


def timed(function):
    """Seconds that it takes, and those of all processor cores."""
    start = time.perf_counter(), time.process_time()
    function()
    return {"seconds": time.perf_counter() - start[0], "cpu": time.process_time() - start[1]}


def peak(device):
    """Most memory ever held on a GPU, bytes; of a process on CPUs its parent asks the system."""
    return jax.devices()[0].memory_stats()["peak_bytes_in_use"] if device == "cuda" else None


def answer(content):
    """A line of JSON to whoever asked."""
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
