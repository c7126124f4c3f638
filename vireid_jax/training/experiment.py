"""What training and evaluation share: the data, the network and the devices of one config."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import operator
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from vireid_jax import losses, registry
from vireid_jax.data import heatmaps, images, loader, sampler
from vireid_jax.evaluation import baselines, features, protocols, report
from vireid_jax.interop import torch_weights
from vireid_jax.models import network
from vireid_jax.training import optimizer, pose_maps, run_page, step
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.devices import Devices
from vireid_jax.training.state import TrainState
from vireid_jax.types import ImageSet, Modality, UserError


def protocols_of(config, test_set: ImageSet) -> list[protocols.Protocol]:
    """How a config's test set is evaluated; raises as `protocols.protocols_for`."""
    options, official = config.evaluation, None
    if "official" in options.galleries:
        exp = Path(config.data.source) / "exp"
        official = protocols.official_galleries(exp / "rand_perm_cam.mat")
    return protocols.protocols_for(
        config.data.protocol,
        test_set,
        shots=options.shots,
        galleries=options.galleries,
        official=official,
    )


class Experiment:
    """A config made concrete; everything in it is checked before anything slow begins.

    Attributes:
      config: the frozen config.
      devices: those of all processes.
      train_set, test_set: the images.
      selection_set: those that the best checkpoint is selected on, None where it is the last.
      protocols: how `test_set` is evaluated.
      sampler: of training batches.
      steps: of the whole run.
      rate: learning rate by step.
    """

    def __init__(self, config):
        """Loads (and on first use prepares) the data.

        Raises:
          UserError: whatever of the config or the data cannot work, with the fix.
        """
        self.config = config
        _check(config)
        joints = max(heatmaps.channels(config.data.heatmaps), 1)
        self._needs_heatmaps = network.architecture(config.model).NEEDS_HEATMAPS
        self.devices = Devices()
        with self.devices.first_process_first():
            self.train_set = self._images("train")
            self.test_set = self._images("test")
            self.selection_set = self._selection_set()
        self.protocols = protocols_of(config, self.test_set)
        self.sampler = sampler.PKSampler.of(
            self.train_set, config.batch.identities, config.batch.images, config.seed
        )
        batch = config.batch.identities * config.batch.images
        per_epoch = sampler.steps_per_epoch(self.train_set, batch)
        self.steps = config.train.steps or config.train.epochs * per_epoch
        self.rate = optimizer.schedule(config.optimizer, self.steps, per_epoch)
        self._optimizer = optimizer.build(config.optimizer, self.rate)
        if self.train_set.heatmaps is None and "pose" in config.loss:
            tqdm.write(f"{config.data.dataset} has no heatmaps here: training without L_pose")
        self._objective = losses.build(self._losses)
        ids = len(set(self.train_set.pid.tolist()))
        self._network = network.build(
            config.model, ids, config.dtype, joints, self.devices.axis, config.train.remat
        )
        # Compiled when first called.
        self._embed = {
            flip: {modality: self._embedder(modality, flip) for modality in Modality}
            for flip in (False, True)
        }
        identity_loss = step.make_identity_loss(self._network, config.augment.grey)
        self._identity_loss = self.devices.embed(
            lambda variables, rows: identity_loss(variables, *rows)
        )

    @property
    def _losses(self):
        """Those of the config that the data allow."""
        terms = self.config.loss.to_dict()
        if self.train_set.heatmaps is None:
            terms.pop("pose", None)
        return terms

    @property
    def terms(self) -> list[str]:
        """Names of the losses that the config and the data allow."""
        return sorted(name for name, options in self._losses.items() if options["weight"])

    def require_all_losses(self) -> None:
        """Refuses data that lack what a loss of the config needs, for runs to be compared.

        Raises:
          UserError: names the losses.
        """
        wanted = {name for name, options in self.config.loss.items() if options.weight}
        if lacking := wanted - set(self.terms):
            raise UserError(
                f"config.loss.{', '.join(sorted(lacking))} would be left out, since "
                f"{self.config.data.dataset} has no heatmaps here, and what it adds cannot be "
                "told: give config.data.heatmap_file, and no config.data.heatmaps=none"
            )

    def sibling(self, config) -> "Experiment":
        """The run of a config that differs in the seed and in weights of losses alone.

        It shares this one's data and compiled programs of evaluation.

        Raises:
          UserError: a value that cannot work, with the fix.
        """
        _check(config)
        other = copy.copy(self)
        other.config = config
        other.sampler = dataclasses.replace(self.sampler, seed=config.seed)
        other._objective = losses.build(other._losses)
        return other

    @property
    def _selection_split(self):
        return self.config.train.selection.removeprefix("best-on-")

    def _selection_set(self):
        if self._selection_split == "test":
            return self.test_set
        return self._images("val") if self._selection_split == "val" else None

    def _images(self, split):
        found = images.load_images(self.config.data, split, self._needs_heatmaps)
        if self._needs_heatmaps and found.heatmaps is None:
            raise UserError(
                f"config.model.architecture={self.config.model.architecture} looks only where it "
                f"is given keypoints, and {self.config.data.dataset} has no heatmaps here: give "
                "config.data.heatmap_file, and no config.data.heatmaps=none"
            )
        return found

    @staticmethod
    def check_devices(config, devices: Devices) -> None:
        """Refuses a batch that the devices cannot share; raises as `Devices.check_identities`."""
        devices.check_identities(config.batch.identities)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the sets, by their splits."""
        sets = {"train": self.train_set, "test": self.test_set}
        if self.selection_set is not None:
            sets[self._selection_split] = self.selection_set
        return {split: own.fingerprint for split, own in sets.items()}

    def init_state(self, whole: bool = False) -> TrainState:
        """The state at step 0: random by the config's seed, then what the config's files hold.

        Args:
          whole: `init_from` has to hold the whole network, which is taken as it is.

        Raises:
          UserError: a file of weights that cannot be read or does not fit.
        """
        variables = self._random_variables()
        model = self.config.model
        if model.init_from:
            allowed = (torch_weights.PUBLISHED, torch_weights.TORCHVISION)[: 1 if whole else 2]
            variables = torch_weights.start_from(
                model.init_from, variables, allowed, "config.model.init_from"
            )
        if model.init_pose_from and not whole:
            variables = pose_maps.start_pose_branch(model.init_pose_from, variables)
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
            jnp.int32(0), params, variables["batch_stats"], jax.jit(self._optimizer.init)(params)
        )

    def batches(self) -> loader.Batches:
        """This process's rows of every batch of the run."""
        own = self.devices.own_rows(self.config.batch.identities * self.config.batch.images)
        return loader.Batches(self.train_set, self.sampler, self.steps, own)

    def update(self, seed, weights=None):
        """The step before it is compiled, see `step.make_train_step`.

        Args:
          seed: the config's or another; it may be traced.
          weights: of losses, see `losses.build`.
        """
        return step.make_train_step(
            self._network,
            functools.partial(self._objective, weights=weights),
            self._optimizer,
            self.rate,
            self.config.augment.to_dict(),
            seed,
            self.devices.axis,
        )

    def train_step(self):
        """The compiled step over all devices."""
        return self.devices.train_step(self.update(self.config.seed))

    def log(self, workdir, step: int):
        """The logs of a run that continues after `step`, which no later state is the best of."""
        if self.selection_set is not None:
            with Checkpoints(workdir.best, best=True) as best:
                best.forget_after(step)
        return workdir.log(step)

    def observe(self, state: TrainState, workdir, log, last: bool) -> TrainState:
        """Between steps: keeps `state` if it is the best so far, or evaluates it.

        Args:
          state: after the step.
          workdir: of the run.
          log: of the run.
          last: whether `finish` follows.
        """
        selection = self.config.train.selection
        if self.selection_set is None:
            if not last and self.devices.first_process:
                results, _ = self._report(state, workdir, "last")
                log.write_results(int(state.step), results["protocols"])
            return state
        score, step = 0.0, int(state.step)
        if self.devices.first_process:
            score, results = self.score(state)
            log.write_results(step, results, self._selection_split)
        score = self.devices.of_first_process(score)
        with Checkpoints(workdir.best, best=True) as best:
            best.save(state, score)
            tqdm.write(
                f"step {step}, {selection}: mAP {score:.2f}, the best is of step {best.latest}"
            )
        return state

    def finish(self, state: TrainState, workdir, trained: bool = True) -> dict | None:
        """Evaluates the selected state, prints the table and writes results.json.

        Args:
          state: the last one.
          workdir: of the run.
          trained: by a run, among whose states the config may select another.

        Returns:
          The content of results.json; None in a process that is not the first.
        """
        if trained and self.selection_set is not None:
            with Checkpoints(workdir.best, read_only=True, best=True) as best:
                state = best.restore(self.abstract_state())
        if not self.devices.first_process:
            return None
        selection = self.config.train.selection if trained else "last"
        results, found = self._report(state, workdir, selection)
        run_page.write(self, state, found, results, workdir)
        return results

    def _report(self, state, workdir, selection):
        """The content of results.json, and the features that it is of."""
        config = self.config
        found = self.features(state, self.test_set, config.evaluation.flip_averaging)
        results = {
            "dataset": config.data.dataset,
            "config": f"{config.name}:{config.variant}",
            "step": int(state.step),
            "selection": selection,
            "flip_averaging": config.evaluation.flip_averaging,
            "re_ranking": config.evaluation.re_ranking,
            "losses": self.terms,
            "protocols": protocols.evaluate(
                found, self.test_set, self.protocols, config.evaluation.re_ranking
            ),
            "baselines": self.baselines(),
        }
        workdir.write("results.json", results)
        tqdm.write(report.table(results))
        return results, found

    def score(self, state: TrainState) -> tuple[float, dict]:
        """What the best checkpoint is selected by, and the results that it is from.

        It is the mAP of the widest feature under the first protocol, in percent, whatever the
        config's `evaluation` says.
        """
        family = protocols.protocols_for(self.config.data.protocol, self.selection_set)
        found = self.features(state, self.selection_set, flip_averaging=False)
        results = protocols.evaluate(found, self.selection_set, family)
        return results[family[0].name][list(found)[-1]]["mAP"]["mean"], results

    def features(self, state: TrainState, image_set, flip_averaging: bool = False) -> dict:
        """f_ID and perhaps f_ALL of a set of images, see `features.extract`."""
        variables = self.devices.replicate(state.variables)
        embed = {
            modality: functools.partial(mapped, variables)
            for modality, mapped in self._embed[flip_averaging].items()
        }
        batch = self.config.evaluation.batch * self.devices.here
        return features.extract(embed, image_set, batch, self._needs_heatmaps)

    def _embedder(self, modality, flip):
        function = step.make_embed(self._network, modality, flip, self.config.augment.grey)
        return self.devices.embed(lambda variables, inputs: function(variables, *inputs))

    def identity_losses(self, state: TrainState, image_set, swapped: bool) -> np.ndarray:
        """L_id of training images, each summed over all heads: float32 [n].

        Args:
          state: of the network.
          image_set: of identities in the training set.
          swapped: each image goes through the stem of the other modality, not of its own.
        """
        label = np.searchsorted(np.unique(self.train_set.pid), image_set.pid)
        found = np.empty(len(image_set), np.float32)
        batch = self.config.evaluation.batch * self.devices.here
        stems = ("ir", "rgb") if swapped else ("rgb", "ir")

        def inputs(rows):
            return label[rows], *features.inputs_of(image_set, rows, self._needs_heatmaps)

        for modality, stem in zip(Modality, stems, strict=True):
            variables = network.exchanged(state.variables, "rgb", stem)
            variables = self.devices.replicate(variables)
            own = np.flatnonzero(image_set.modality == modality)
            computed = functools.partial(self._identity_loss, variables)
            for rows, values in features.in_batches(computed, own, batch, inputs):
                found[rows] = values
        return found

    def baselines(self) -> dict:
        """Figures of hand-made features, see `baselines.baseline_results`; computed once."""
        sets = self.train_set, self.test_set
        made_of = hashlib.sha1("|".join(own.fingerprint for own in sets).encode())
        for protocol in self.protocols:
            made_of.update(protocol.name.encode())
            for trial in protocol.trials:
                made_of.update(trial.query.tobytes() + b"|" + trial.gallery.tobytes())
        name = made_of.hexdigest()[:20]
        file = Path(self.config.data.dir) / "baselines" / f"{name}.json"
        if not file.exists():
            results = baselines.baseline_results(*sets, self.protocols)
            with contextlib.suppress(OSError):  # a folder of data may be read-only
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_suffix(f".partial{os.getpid()}")
                partial.write_text(json.dumps(results))
                partial.rename(file)
            return results
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


def check_values(config, at_least: dict[str, int]) -> None:
    """Refuses a dtype that is none, and values below the least that their keys allow.

    Raises:
      UserError: naming the key.
    """
    for key, least in at_least.items():
        value = operator.attrgetter(key)(config)
        if value < least:
            raise UserError(f"config.{key}={value} must be {least} or more")
    registry.choose("config.dtype", config.dtype, {"float32": None, "bfloat16": None})


def _check(config):
    """Refuses values that would fail only later, or half-way."""
    check_values(config, _AT_LEAST)
    registry.choose("config.data.protocol", config.data.protocol, protocols.FAMILIES)
    for term, module in _NEEDS.items():
        if term in config.loss and config.loss[term].weight and not config.model[module]:
            raise UserError(
                f"config.loss.{term} needs config.model.{module}=True; the variants of "
                "configs/variants.py leave both out together"
            )
    losses.build(config.loss.to_dict())
    network.check_size(config.data.height, config.data.width, config.model.parts)
    network.build(config.model, 1, config.dtype, 1)
    heatmaps.channels(config.data.heatmaps)
    _check_selection(config)
    _check_evaluation(config.evaluation)


def _check_selection(config):
    selection = config.train.selection
    registry.choose("config.train.selection", selection, report.SELECTIONS)
    if selection != "last" and not config.train.eval_every:
        raise UserError(
            f"config.train.selection={selection} needs config.train.eval_every, the steps between "
            "the checkpoints to select from"
        )
    if selection == "best-on-val" and "val" in config.data.train_split.split("+"):
        raise UserError(
            "config.train.selection=best-on-val needs identities that are not trained on: give "
            "--config.data.train_split=train"
        )


def _check_evaluation(options):
    for kind in options.galleries:
        registry.choose("config.evaluation.galleries", kind, protocols.GALLERIES)
    for key in ("galleries", "shots"):
        if not options[key] or len(set(options[key])) < len(options[key]):
            raise UserError(f"config.evaluation.{key}={options[key]} must name each choice once")
    if not all(isinstance(count, int) and count > 0 for count in options.shots):
        raise UserError(f"config.evaluation.shots={options.shots} must be 1 or more")
