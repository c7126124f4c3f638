"""What training and evaluation of the pose teacher share; `experiment.Experiment` for poses."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vireid_jax import registry
from vireid_jax.data import heatmaps, poses
from vireid_jax.evaluation import pckh, report
from vireid_jax.evaluation.features import in_batches
from vireid_jax.interop import torch_weights
from vireid_jax.models import convolution, pose_teacher
from vireid_jax.models.layers import INITIALIZERS, Layers
from vireid_jax.training import optimizer, pose_maps, pose_step, run_page
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import check_values
from vireid_jax.training.state import TrainState
from vireid_jax.types import Modality, PoseBatch, PoseSet, UserError

WEIGHTS = "pose_teacher.safetensors"


class PoseExperiment:
    """A config such as configs/pose_lip.py made concrete.

    Attributes:
      config: the frozen config.
      devices: those of all processes.
      train_set, test_set: the images with their keypoints.
      steps: of the whole run.
    """

    def __init__(self, config):
        """Loads (and on first use prepares) the data.

        Raises:
          UserError: whatever of the config or the data cannot work, with the fix.
        """
        self.config = config
        _check(config)
        self.devices = Devices()
        with self.devices.first_process_first():
            size = config.model.input
            self.train_set = poses.load_poses(config.data, "train", *size)
            self.test_set = poses.load_poses(config.data, config.data.test_split, *size)
        per_epoch = len(self.train_set) // config.batch.images
        if not per_epoch:
            raise UserError(
                f"config.batch.images={config.batch.images}, but the training split has only "
                f"{len(self.train_set)} images"
            )
        self.steps = config.train.steps or config.train.epochs * per_epoch
        self._rate = optimizer.schedule(config.optimizer, self.steps, per_epoch)
        self._rule = pose_step.build_optimizer(config.optimizer, self._rate)
        self._plateau = pose_step.build_plateau(config.optimizer)

    @staticmethod
    def check_devices(config, devices: Devices) -> None:
        """Refuses a batch that the devices cannot share.

        Raises:
          UserError: not a multiple of the device count.
        """
        if config.batch.images % len(devices):
            raise UserError(
                f"config.batch.images={config.batch.images} cannot be split over {len(devices)} "
                "devices: use a multiple"
            )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the sets, by their use."""
        return {"train": self.train_set.fingerprint, "test": self.test_set.fingerprint}

    def _network(self, train: bool):
        model = self.config.model
        layers = Layers(
            train,
            jnp.dtype(self.config.dtype),
            self.devices.axis if train else None,
            convolution.for_backend(),
            INITIALIZERS["published_code"],
            norm_bias=model.norm_bias,
        )
        return pose_teacher.PoseTeacher(layers, model.stages, model.width)

    def init_state(self, whole: bool = False) -> TrainState:
        """The state at step 0: random by the config's seed, then what `init_from` holds.

        Args:
          whole: `init_from` has to hold the whole network, not only its trunk.

        Raises:
          UserError: a file of weights that cannot be read or does not fit.
        """
        variables = self._random_variables()
        if file := self.config.model.init_from:
            allowed = (torch_weights.GCCPM, torch_weights.MOBILENET)[: 1 if whole else 2]
            variables = torch_weights.start_from(file, variables, allowed, "config.model.init_from")
        return self._at_step_0(variables)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of a state."""
        return jax.eval_shape(lambda: self._at_step_0(self._random_variables()))

    def _random_variables(self):
        image = jnp.zeros((1, *self.config.model.input, 3))
        init = jax.jit(self._network(train=False).init)
        return init(jax.random.key(self.config.seed), image)

    def _at_step_0(self, variables):
        params = variables["params"]
        plateau = None
        if self._plateau:  # whose best value is infinite, which checkpoints refuse
            plateau = self._plateau.init(params)
            plateau = plateau._replace(best_value=jnp.finfo(plateau.best_value).max)
        opt_state = jax.jit(self._rule.init)(params), plateau
        return TrainState(jnp.int32(0), params, variables["batch_stats"], opt_state)

    def batches(self) -> "PoseBatches":
        """This process's rows of every batch of the run."""
        size = self.config.batch.images
        own = self.devices.own_rows(size)
        return PoseBatches(self.train_set, size, self.steps, self.config.seed, own)

    def train_step(self):
        """The compiled step over all devices, see `pose_step.make_train_step`."""
        augmentation = self.config.augment.to_dict()
        return self.devices.train_step(
            pose_step.make_train_step(
                self._network(train=True), self._rule, self._rate, augmentation, self.config.seed,
                self.devices.axis,
            )
        )  # fmt: skip

    def log(self, workdir, step: int):
        """The logs of a run that continues after `step`."""
        return workdir.log(step)

    def observe(self, state: TrainState, workdir, log, last: bool) -> TrainState:
        """Evaluates between steps, and lowers the rate where that shows no progress."""
        if last:  # as `finish` does
            return state
        value = 0.0
        if self.devices.first_process:
            few = slice(self.config.evaluation.images or None)
            results = self.evaluate(state, few)
            step = int(state.step)
            averages = {name: own["teacher"].get("average", 0) for name, own in results.items()}
            value = float(np.mean(list(averages.values())))
            tqdm.write(f"step {step}: PCKh {value:.2f}")
            figures = {name: {"average": {"mean": found}} for name, found in averages.items()}
            log.write_results(step, {"pckh": figures})
        if self._plateau is None:
            return state
        worse = 100 - self.devices.of_first_process(value)
        adam, plateau = jax.device_get(state.opt_state)
        _, plateau = self._plateau.update({}, plateau, value=worse)
        return self.devices.replicate(state.replace(opt_state=(adam, plateau)))

    def finish(self, state: TrainState, workdir, trained: bool = True) -> dict | None:
        """Evaluates on the whole test split, writes results.json and the teacher's weights."""
        if not self.devices.first_process:
            return None
        config = self.config
        results = {
            "dataset": config.data.dataset,
            "config": config.name,
            "step": int(state.step),
            "pckh": self.evaluate(state),
        }
        workdir.write("results.json", results)
        variables = jax.device_get(state.variables)
        pose_maps.save(workdir.path / WEIGHTS, variables, config.model.input)
        tqdm.write(report.pose_table(results))
        run_page.write_poses(results, workdir)
        return results

    def evaluate(self, state: TrainState, rows: slice = slice(None)) -> dict:
        """PCKh at 0.5 in percent: {modality: {"teacher" or "mean pose": {joint: value}}}.

        Joints that no image shows are left out.
        The mean pose is that of the training images, relative to each image's size.

        Args:
          state: of the network.
          rows: of the test split.
        """
        found, own = self.keypoints(state, rows), self.test_set
        predicted = {"teacher": found, "mean pose": mean_pose(self.train_set, own.box[rows])}
        keypoints = own.keypoints[rows]
        truth = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], -1)
        table = {}
        for modality in Modality:
            chosen = own.modality[rows] == modality
            if chosen.any():
                table[modality.name.lower()] = {
                    name: _figures(pckh.pckh(points[chosen], truth[chosen])[0])
                    for name, points in predicted.items()
                }
        return table

    def keypoints(self, state: TrainState, rows: slice = slice(None)) -> np.ndarray:
        """What the network in `state` finds in the test split: float [n, 16, 2], x and y."""
        variables = self.devices.replicate(state.variables)
        own, size = self.test_set, self.config.evaluation.batch * self.devices.here
        every = np.arange(len(own))[rows]
        found = []
        with tqdm(total=len(every), desc="poses", unit="img", leave=False) as bar:
            located = functools.partial(self._locate, variables)
            for chosen, points in in_batches(located, every, size, functools.partial(_rows, own)):
                found.append(points)
                bar.update(len(chosen))
        return np.concatenate(found)

    @functools.cached_property
    def _locate(self):
        network = self._network(train=False)

        def locate(variables, batch):
            maps = network.apply(variables, pose_step.normalise(batch.images))[-1]
            maps = maps[..., : len(heatmaps.JOINTS)]
            return pose_maps.highest(maps, batch.box, pose_teacher.STRIDE)

        return self.devices.embed(locate)


class PoseBatches:
    """The training batches of a run as a random-access sequence; item i is that of step i.

    Every epoch shows each image once, in an order that depends on (seed, epoch) alone; what does
    not fill a batch is left out.
    """

    def __init__(self, pose_set: PoseSet, size: int, steps: int, seed: int, own: slice):
        """See the class.

        Args:
          pose_set: the training images.
          size: of a batch.
          steps: the length of the sequence.
          seed: any non-negative integer.
          own: the rows of a batch that are wanted here.
        """
        self._set, self._size, self._steps, self._seed, self._own = pose_set, size, steps, seed, own

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> PoseBatch:
        epoch, place = divmod(int(step), len(self._set) // self._size)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._set))
        return _rows(self._set, order[place * self._size :][: self._size][self._own])


def mean_pose(pose_set: PoseSet, box) -> np.ndarray:
    """The mean of the keypoints in `pose_set`, relative to each image, in images at `box`.

    Args:
      pose_set: missing joints do not count.
      box: int [n, 4], see `PoseSet`.

    Returns:
      float [n, 16, 2].
    """

    def corner_and_size(box):
        return box[:, None, 1::-1], box[:, None, :1:-1]  # x and y

    corner, size = corner_and_size(pose_set.box)
    there = pose_set.keypoints[..., 2:] > 0
    mean = ((pose_set.keypoints[..., :2] - corner) / size).mean(0, where=there)
    corner, size = corner_and_size(box)
    return mean * size + corner


def _rows(pose_set, rows):
    return PoseBatch(
        np.asarray(pose_set.images[rows]), pose_set.keypoints[rows], pose_set.box[rows]
    )


def _figures(values):
    names = *heatmaps.JOINTS, "upper_body", "average"
    return {n: float(v) for n, v in zip(names, values, strict=True) if not math.isnan(v)}


_AT_LEAST = {
    "seed": 0,
    "batch.images": 1,
    "evaluation.batch": 1,
    "evaluation.images": 0,
    "model.stages": 1,
    "model.width": 1,
    "optimizer.patience": 0,
    "train.epochs": 1,
    "train.steps": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.eval_every": 0,
}


def _check(config):
    """Refuses values that would fail only later, or half-way."""
    check_values(config, _AT_LEAST)
    schedules = {"constant": None, "cosine": None}
    registry.choose("config.optimizer.schedule", config.optimizer.schedule, schedules)
    if config.optimizer.patience and not config.train.eval_every:
        raise UserError(
            f"config.optimizer.patience={config.optimizer.patience} counts evaluations: give "
            "config.train.eval_every, or 0 for the patience"
        )
    if config.model.width % 16:
        raise UserError(f"config.model.width={config.model.width} must be a multiple of 16")
    if any(side < 32 or side % pose_teacher.STRIDE for side in config.model.input):
        raise UserError(
            f"config.model.input={config.model.input} must be multiples of "
            f"{pose_teacher.STRIDE}, 32 or more"
        )
