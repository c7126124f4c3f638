"""The two modes of main.py: train (then evaluate), and evaluate a trained run."""

import contextlib
import signal
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vireid_jax import registry
from vireid_jax.data import loader
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.devices import Devices, keep_memory
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.pose_experiment import PoseExperiment
from vireid_jax.training.replicas import Replicas, single_configs, workdir_of
from vireid_jax.training.signals import StopRequest
from vireid_jax.training.state import TrainState
from vireid_jax.training.workdir import Busy, Workdir
from vireid_jax.types import UserError

_EXPERIMENTS = {"reid": Experiment, "pose": PoseExperiment}  # by config.task
_RANDOM = (
    "the backbone starts at random: it lacks ImageNet's weights (config.model.init_from), which "
    "the paper's figures rest on, and needs many more images to learn as much"
)


def train(config, folder: str, allow_config_change: bool = False) -> dict | None:
    """Trains to the config's last step, from the newest checkpoint if there is one.

    SIGINT and SIGTERM save a checkpoint and end the process with status 128 plus their number. Of
    several processes (see `devices.connected`) the first alone evaluates and writes.

    Args:
      config: a frozen config, see configs/default.py.
      folder: of the run; see `Workdir` and the README for what it holds.
      allow_config_change: continue with a config that is not the one that the run began with.

    Returns:
      The content of results.json, of replicas a list of it; None in a process that is not the
      first.

    Raises:
      UserError: a mistake in the config, the data or the folder; another run works in it.
    """
    keep_memory(config.train.keep_memory)
    workdir = Workdir(folder, config, allow_config_change)
    if workdir.path.exists():
        with workdir.alone():  # or refuse before anything slow
            pass
    _require_weights(config, workdir, "init_from", "init_pose_from")
    kind = _kind(config)
    kind.check_devices(config, Devices())
    experiment = kind(config)
    start = None if workdir.has_checkpoint else experiment.init_state()
    with workdir.alone(), Checkpoints(workdir.checkpoints) as checkpoints:
        workdir.start(experiment.devices, experiment.fingerprints, experiment.steps)
        if start is None or workdir.has_checkpoint:
            state = checkpoints.restore(experiment.abstract_state())
            tqdm.write(f"continuing {folder} after step {int(state.step)}")
        else:
            state = start
            if not config.model.init_from:
                tqdm.write(_RANDOM)
        with contextlib.closing(experiment.log(workdir, int(state.step))) as log:
            state = _loop(experiment, state, workdir, checkpoints, log)
            workdir.evaluate_anew()  # it may have been evaluated by other options meanwhile
            results = experiment.finish(state, workdir)
    experiment.devices.wait_for_all("end")
    return results


def evaluate(config, folder: str, allow_config_change: bool = False) -> dict | None:
    """Evaluates the last (or best, by `selection`) checkpoint of a run; returns as `train`.

    Where there is none yet, the weights of `config.model.init_from` are evaluated as they are.

    Raises:
      UserError: as `train`; there is neither a checkpoint nor `init_from`.
    """
    workdir = Workdir(folder, config, allow_config_change)
    trained = workdir.has_checkpoint
    if not trained and not config.model.init_from:
        raise UserError(
            f"no checkpoint in {workdir.path}: train first (--mode=train), or give "
            "--config.model.init_from=FILE"
        )
    _require_weights(config, workdir, "init_from")
    experiment = _kind(config)(config)
    if trained:
        workdir.check_data(experiment.fingerprints)
        with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
            state = checkpoints.restore(experiment.abstract_state())
        workdir.evaluate_anew()
    else:
        state = experiment.init_state(whole=True)
        workdir.start(experiment.devices, experiment.fingerprints, experiment.steps)
    results = experiment.finish(state, workdir, trained)
    experiment.devices.wait_for_all("end")
    return results


def train_in_turn(config, folder: str, together: bool = False) -> list[Path] | None:
    """The runs of `config.replicas` one after another, in the folders that `train` gives them.

    Those that have ended are left as they are (or are evaluated again, by other options of the
    config), and those that another process trains are left to it: called by several processes at
    once, it shares the runs among them.

    Args:
      config: with values in `config.replicas`.
      folder: of all runs.
      together: as one program instead, by `train`.

    Returns:
      The folders of the runs; None while another process still trains one.

    Raises:
      UserError: as `train`.
    """
    runs = [
        (single, workdir_of(folder, index, single))
        for index, single in enumerate(single_configs(config))
    ]
    missing = [(single, str(run.path)) for single, run in runs if not run.ended]
    if together and missing:
        missing = [(config, folder)]
    for own, place in missing:
        with contextlib.suppress(Busy):
            train(own, place)
    return [run.path for _, run in runs] if all(run.ended for _, run in runs) else None


def _kind(config):
    kind = registry.choose("config.task", config.task, _EXPERIMENTS)
    return Replicas if kind is Experiment and any(config.replicas.values()) else kind


def _require_weights(config, workdir, *keys):
    """Before the data are prepared, which may take long."""
    for key in keys:
        file = config.model.get(key)
        if file and not workdir.has_checkpoint and not Path(file).is_file():
            raise UserError(f"config.model.{key}={file} does not exist")


def _loop(experiment, state, workdir, checkpoints, log) -> TrainState:
    options, first, last = experiment.config.train, int(state.step), experiment.steps
    batches = experiment.batches()
    devices, train_step = experiment.devices, experiment.train_step()
    state = devices.replicate(state)
    pending = None  # the newest metrics: fetched one log later, so that no step waits for them

    def flush():
        if pending:
            values = {name: np.asarray(value).tolist() for name, value in pending[1].items()}
            if not np.isfinite(values["loss"]).all():
                raise UserError(
                    f"the loss at step {pending[0]} is not finite ({values}); the last checkpoint "
                    f"is of step {checkpoints.latest}. Likely the learning rate is too high or its "
                    "warm-up too short, or bfloat16 too coarse: try a lower "
                    "config.optimizer.learning_rate in another --workdir"
                )
            log.write(pending[0], values)

    bar = tqdm(total=last, initial=first, desc="training", unit="step")
    with bar as progress, StopRequest() as stop:
        ahead = loader.iterate(batches, first, devices.place)
        for step, batch in enumerate(ahead, first + 1):
            state, metrics = train_step(state, batch)
            progress.update()
            if step % options.log_every == 0 or step == last:
                flush()
                pending = step, metrics
                log.time(step)
            # Scored before it is saved: a run killed in between scores it again.
            if options.eval_every and (step % options.eval_every == 0 or step == last):
                state = experiment.observe(state, workdir, log, step == last)
            if step % options.checkpoint_every == 0 or step == last:
                flush()
                pending = None
                checkpoints.save(state)  # which refuses a state that is not finite
            if devices.processes > 1 and step % options.log_every and step < last:
                continue  # asking the others costs a wait for them
            if number := devices.largest(stop.number):
                flush()
                checkpoints.save(state)
                checkpoints.wait()
                name = signal.Signals(number).name
                tqdm.write(f"{name}: saved after step {step}; the same command continues")
                sys.exit(128 + number)
    return state
