"""What training and evaluation share: the data, the network and the devices of one config."""

import functools
import json
import operator
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from tqdm import tqdm

from vireid_jax import losses, registry
from vireid_jax.data import heatmaps, images, sampler
from vireid_jax.evaluation import baselines, features, protocols
from vireid_jax.interop import torch_weights
from vireid_jax.models import network
from vireid_jax.training import optimizer, step
from vireid_jax.training.devices import AXIS, Devices
from vireid_jax.training.state import TrainState
from vireid_jax.types import ImageSet, Modality, UserError


class Experiment:
    """A config made concrete; everything in it is checked before anything slow begins.

    Attributes:
      config: the frozen config.
      devices: all local devices.
      train_set, test_set: the images.
      sampler: of training batches.
      steps: of the whole run.
      rate: learning rate by step.
      terms: names of the losses that the config and the data allow.
    """

    def __init__(self, config):
        """Loads (and on first use prepares) the data.

        Raises:
          UserError: whatever of the config or the data cannot work, with the fix.
        """
        self.config = config
        _check(config)
        network.check_size(config.data.height, config.data.width, config.model.parts)
        joints = heatmaps.channels(config.data.heatmaps)
        terms = config.loss.to_dict()
        losses.build(terms)  # this and the next line for their errors, before data are prepared
        network.build(config.model, 1, config.dtype, max(joints, 1))
        self.devices = Devices()
        self.train_set = images.load_images(config.data, "train")
        self.sampler = sampler.PKSampler.of(
            self.train_set, config.batch.identities, config.batch.images, config.seed
        )
        batch = config.batch.identities * config.batch.images
        per_epoch = sampler.steps_per_epoch(self.train_set, batch)
        self.steps = config.train.steps or config.train.epochs * per_epoch
        self.rate = optimizer.schedule(config.optimizer, self.steps, per_epoch)
        self._optimizer = optimizer.build(config.optimizer, self.rate)
        if self.train_set.heatmaps is None and terms.pop("pose", None):
            tqdm.write(f"{config.data.dataset} has no heatmaps here: training without L_pose")
        self.terms = sorted(name for name, options in terms.items() if options["weight"])
        self._objective = losses.build(terms)
        ids = len(set(self.train_set.pid.tolist()))
        self._network = network.build(config.model, ids, config.dtype, max(joints, 1), AXIS)

    @functools.cached_property
    def test_set(self) -> ImageSet:
        """The images that are evaluated."""
        return images.load_images(self.config.data, "test")

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of both sets, by split."""
        return {"train": self.train_set.fingerprint, "test": self.test_set.fingerprint}

    def init_state(self, whole: bool = False) -> TrainState:
        """The state at step 0: random by the config's seed, then what `init_from` holds.

        Args:
          whole: `init_from` has to hold the whole network, not only its backbone.

        Raises:
          UserError: a file of weights that cannot be read or does not fit.
        """
        variables = self._random_variables()
        file = self.config.model.init_from
        if file:
            weights = torch_weights.read(file)
            layout = torch_weights.detect(weights)
            allowed = (torch_weights.PUBLISHED, torch_weights.TORCHVISION)[: 1 if whole else 2]
            if layout not in allowed:
                raise UserError(
                    f"config.model.init_from={file} is {layout.title}, where "
                    f"{' or '.join(x.title for x in allowed)} is needed"
                )
            variables = torch_weights.to_flax(weights, variables, layout)
        return self._at_step_0(variables)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of a state."""
        return jax.eval_shape(lambda: self._at_step_0(self._random_variables()))

    def _random_variables(self):
        data = self.config.data
        key = jax.random.key(self.config.seed)
        return network.init(self._network, key, data.height, data.width)

    def _at_step_0(self, variables):
        params = variables["params"]
        return TrainState(
            jnp.int32(0), params, variables["batch_stats"], self._optimizer.init(params)
        )

    def train_step(self):
        """The compiled step over all devices, see `step.make_train_step`."""
        return self.devices.train_step(
            step.make_train_step(
                self._network,
                self._objective,
                self._optimizer,
                self.rate,
                self.config.augment.to_dict(),
                self.config.seed,
                AXIS,
            )
        )

    def evaluate(self, state: TrainState) -> dict:
        """The `protocols` part of results.json, for the network in `state`."""
        family = protocols.protocols_for(self.config.data.protocol, self.test_set)
        variables = self.devices.replicate(
            {"params": state.params, "batch_stats": state.batch_stats}
        )
        embed = {
            modality: functools.partial(mapped, variables)
            for modality, mapped in self._embed.items()
        }
        batch = self.config.evaluation.batch * len(self.devices)
        found = features.extract(embed, self.test_set, batch)
        return protocols.evaluate(found, self.test_set, family)

    @functools.cached_property
    def _embed(self):
        return {m: self.devices.embed(step.make_embed(self._network, m)) for m in Modality}

    def baselines(self) -> dict:
        """Figures of hand-made features, see `baselines.baseline_results`; computed once."""
        config, sets = self.config.data, (self.train_set, self.test_set)
        name = "-".join([config.protocol, *(s.fingerprint[:12] for s in sets)])
        file = Path(config.dir) / "baselines" / f"{name}.json"
        if not file.exists():
            family = protocols.protocols_for(config.protocol, self.test_set)
            results = baselines.baseline_results(*sets, family)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".partial{os.getpid()}")
            partial.write_text(json.dumps(results))
            partial.rename(file)
        return json.loads(file.read_text())


_AT_LEAST = {
    "seed": 0,
    "batch.identities": 1,
    "batch.images": 1,
    "evaluation.batch": 1,
    "model.parts": 1,
    "model.width": 1,
    "model.pose_width": 1,
    "model.features": 1,
    "model.teacher_features": 1,
    "augment.crop_pad": 0,
    "optimizer.decay_epochs": 1,
    "train.epochs": 1,
    "train.steps": 0,
    "train.log_every": 1,
    "train.checkpoint_every": 1,
    "train.eval_every": 0,
}
_NEEDS = {"pose": "pose_branch", "distillation": "teacher", "teacher_identity": "teacher"}


def _check(config):
    """Refuses values that would fail only later, or half-way."""
    for key, least in _AT_LEAST.items():
        value = operator.attrgetter(key)(config)
        if value < least:
            raise UserError(f"config.{key}={value} must be {least} or more")
    registry.choose("config.dtype", config.dtype, {"float32": None, "bfloat16": None})
    registry.choose("config.data.protocol", config.data.protocol, protocols.FAMILIES)
    for term, module in _NEEDS.items():
        if term in config.loss and config.loss[term].weight and not config.model[module]:
            raise UserError(
                f"config.loss.{term} needs config.model.{module}=True; the variants of "
                "configs/variants.py leave both out together"
            )
