"""The two modes of main.py: train (then evaluate), and evaluate a trained run."""

import contextlib
import math
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from vireid_jax.data import loader
from vireid_jax.evaluation import report
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.signals import StopRequest
from vireid_jax.training.state import TrainState
from vireid_jax.training.workdir import Silence, Workdir
from vireid_jax.types import UserError

_RANDOM = (
    "all weights start at random: the backbone lacks ImageNet's (config.model.init_from), which "
    "the paper's figures rest on, and needs many more images to learn as much"
)


def train(config, folder: str, allow_config_change: bool = False) -> dict | None:
    """Trains to the config's last step, from the newest checkpoint if there is one.

    SIGINT and SIGTERM save a checkpoint and end the process with status 128 plus their number. Of
    several processes (see `devices.connect`) the first alone evaluates and writes.

    Args:
      config: a frozen config, see configs/default.py.
      folder: of the run; see `Workdir` and the README for what it holds.
      allow_config_change: continue with a config that is not the one that the run began with.

    Returns:
      The content of results.json; None in a process that is not the first.

    Raises:
      UserError: a mistake in the config, the data or the folder; another run works in it.
    """
    workdir = Workdir(folder, config, allow_config_change)
    if workdir.path.exists():
        with workdir.alone():  # or refuse before anything slow
            pass
    _require_weights(config, workdir)
    Devices().check_identities(config.batch.identities)
    experiment = Experiment(config)
    start = None if workdir.has_checkpoint else experiment.init_state()
    with workdir.alone(), Checkpoints(workdir.checkpoints) as checkpoints:
        workdir.start(experiment.devices, experiment.fingerprints)
        if start is None or workdir.has_checkpoint:
            state = checkpoints.restore(experiment.abstract_state())
            tqdm.write(f"continuing {folder} after step {checkpoints.latest}")
        else:
            state = start
            if not config.model.init_from:
                tqdm.write(_RANDOM)
        with contextlib.closing(workdir.log(int(state.step))) as log:
            state = _loop(experiment, state, workdir, checkpoints, log)
            state = _selected(experiment, state, workdir)
            results = _evaluate(experiment, state, workdir, log, config.train.selection)
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
    _require_weights(config, workdir)
    experiment = Experiment(config)
    if trained:
        workdir.check_data(experiment.fingerprints)
        with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
            state = checkpoints.restore(experiment.abstract_state())
        state = _selected(experiment, state, workdir)
    else:
        state = experiment.init_state(whole=True)
        workdir.start(experiment.devices, experiment.fingerprints)
    selection = config.train.selection if trained else "last"
    results = _evaluate(experiment, state, workdir, Silence(), selection)
    experiment.devices.wait_for_all("end")
    return results


def _require_weights(config, workdir):
    """Before the data are prepared, which may take long."""
    file = config.model.init_from
    if file and not workdir.has_checkpoint and not Path(file).is_file():
        raise UserError(f"config.model.init_from={file} does not exist")


def _loop(experiment, state, workdir, checkpoints, log) -> TrainState:
    options, first, last = experiment.config.train, int(state.step), experiment.steps
    batches = experiment.batches()
    devices, train_step = experiment.devices, experiment.train_step()
    state = devices.replicate(state)
    pending = None  # the newest metrics: fetched one log later, so that no step waits for them

    def flush():
        if pending:
            values = {name: float(value) for name, value in pending[1].items()}
            if not math.isfinite(values["loss"]):
                raise UserError(
                    f"the loss at step {pending[0]} is not finite ({values}); the last checkpoint "
                    f"is of step {checkpoints.latest}. Likely the learning rate is too high or its "
                    "warm-up too short, or bfloat16 too coarse: try a lower "
                    "config.optimizer.learning_rate in another --workdir"
                )
            log.write(pending[0], values)

    bar = tqdm(total=last, initial=first, desc="training", unit="step")
    with bar as progress, StopRequest() as stop:
        for step, batch in enumerate(loader.iterate(batches, first), first + 1):
            state, metrics = train_step(state, batch)
            progress.update()
            if step % options.log_every == 0 or step == last:
                flush()
                pending = step, metrics
            # Scored before it is saved: a run killed in between scores it again.
            if options.eval_every and (step % options.eval_every == 0 or step == last):
                if experiment.selection_set is not None:
                    _compete(experiment, state, workdir, log)
                elif step < last:
                    _evaluate(experiment, state, workdir, log, "last")
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


def _compete(experiment, state, workdir, log):
    """Keeps `state` if it is the best so far."""
    score, step, selection = 0.0, int(state.step), experiment.config.train.selection
    if experiment.devices.first_process:
        score, results = experiment.score(state)
        log.write_results(step, results, selection.removeprefix("best-on-"))
    score = experiment.devices.of_first_process(score)
    with Checkpoints(workdir.best, best=True) as best:
        best.save(state, score)
        tqdm.write(f"step {step}, {selection}: mAP {score:.2f}, the best is of step {best.latest}")


def _selected(experiment, state, workdir):
    """The state that the results are of."""
    if experiment.selection_set is None:
        return state
    with Checkpoints(workdir.best, read_only=True, best=True) as best:
        return best.restore(experiment.abstract_state())


def _evaluate(experiment, state, workdir, log, selection):
    if not experiment.devices.first_process:
        return None
    config = experiment.config
    results = {
        "dataset": config.data.dataset,
        "config": f"{config.name}:{config.variant}",
        "step": int(state.step),
        "selection": selection,
        "flip_averaging": config.evaluation.flip_averaging,
        "re_ranking": config.evaluation.re_ranking,
        "losses": experiment.terms,
        "protocols": experiment.evaluate(state),
        "baselines": experiment.baselines(),
    }
    workdir.write("results.json", results)
    tqdm.write(report.table(results))
    return results
