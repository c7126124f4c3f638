"""The two modes of main.py: train (then evaluate), and evaluate a trained run."""

import math
from pathlib import Path

from tqdm import tqdm

from vireid_jax.data import loader
from vireid_jax.evaluation import report
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.devices import Devices
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.state import TrainState
from vireid_jax.training.workdir import Log, Workdir
from vireid_jax.types import UserError

_RANDOM = (
    "all weights start at random: the backbone lacks ImageNet's (config.model.init_from), which "
    "the paper's figures rest on, and needs many more images to learn as much"
)


def train(config, folder: str) -> dict:
    """Trains to the config's last step, from the newest checkpoint if there is one.

    Args:
      config: a frozen config, see configs/default.py.
      folder: of the run; see `Workdir` and the README for what it holds.

    Returns:
      The content of results.json.

    Raises:
      UserError: a mistake in the config, the data or the folder.
    """
    workdir = Workdir(folder, config)
    _require_weights(config, workdir)
    Devices().check_identities(config.batch.identities)
    experiment = Experiment(config)
    start = None if workdir.has_checkpoint else experiment.init_state()
    workdir.start(experiment.devices, experiment.fingerprints)
    with Checkpoints(workdir.checkpoints) as checkpoints:
        if start is None:
            state = checkpoints.restore(experiment.abstract_state())
            tqdm.write(f"continuing {folder} after step {checkpoints.latest}")
        else:
            state = start
            if not config.model.init_from:
                tqdm.write(_RANDOM)
        log = Log(workdir.path, int(state.step))
        state = _loop(experiment, state, workdir, checkpoints, log)
    state = _selected(experiment, state, workdir)
    results = _evaluate(experiment, state, workdir, config.train.selection)
    log.write_results(results["step"], results["protocols"])
    log.close()
    return results


def evaluate(config, folder: str) -> dict:
    """Evaluates the last (or best, by `selection`) checkpoint of a run; returns results.json.

    Where there is none yet, the weights of `config.model.init_from` are evaluated as they are.

    Raises:
      UserError: as `train`; there is neither a checkpoint nor `init_from`.
    """
    workdir = Workdir(folder, config)
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
    return _evaluate(experiment, state, workdir, config.train.selection if trained else "last")


def _require_weights(config, workdir):
    """Before the data are prepared, which may take long."""
    file = config.model.init_from
    if file and not workdir.has_checkpoint and not Path(file).is_file():
        raise UserError(f"config.model.init_from={file} does not exist")


def _loop(experiment, state, workdir, checkpoints, log) -> TrainState:
    options, first, last = experiment.config.train, int(state.step), experiment.steps
    batches = loader.Batches(experiment.train_set, experiment.sampler, last)
    train_step = experiment.train_step()
    state = experiment.devices.replicate(state)
    pending = None  # the newest metrics: fetched one log later, so that no step waits for them

    def flush():
        if pending:
            values = {name: float(value) for name, value in pending[1].items()}
            if not math.isfinite(values["loss"]):
                raise UserError(
                    f"the loss at step {pending[0]} is not finite ({values}); the last checkpoint "
                    f"is of step {checkpoints.latest}. Try a lower config.optimizer.learning_rate "
                    "in another --workdir"
                )
            log.write(pending[0], values)

    with tqdm(total=last, initial=first, desc="training", unit="step") as progress:
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
                    results = _evaluate(experiment, state, workdir, "last")
                    log.write_results(step, results["protocols"])
            if step % options.checkpoint_every == 0 or step == last:
                flush()
                pending = None
                checkpoints.save(state)  # which refuses a state that is not finite
    return state


def _compete(experiment, state, workdir, log):
    """Keeps `state` if it is the best so far."""
    score, results = experiment.score(state)
    step, selection = int(state.step), experiment.config.train.selection
    log.write_results(step, results, selection.removeprefix("best-on-"))
    with Checkpoints(workdir.best, best=True) as best:
        best.save(state, score)
        tqdm.write(f"step {step}, {selection}: mAP {score:.2f}, the best is of step {best.latest}")


def _selected(experiment, state, workdir):
    """The state that the results are of."""
    if experiment.selection_set is None:
        return state
    with Checkpoints(workdir.best, read_only=True, best=True) as best:
        return best.restore(experiment.abstract_state())


def _evaluate(experiment, state, workdir, selection):
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
