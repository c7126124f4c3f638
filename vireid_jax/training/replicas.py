"""Several runs of one config as one program: other seeds, other weights of the losses.

Their states lie side by side, and `jax.vmap` takes the step to all of them: a batch of small matrix
products is one larger one, and there is one compilation. Each run is the one that its own seed and
weights make alone, up to rounding, and has a folder of its own, `replica_0` and so on, as if it had
been alone: config.json, logs, report.html, results.json and the last checkpoint.
"""

import contextlib
import copy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vireid_jax.data import loader
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.experiment import Experiment
from vireid_jax.training.state import TrainState
from vireid_jax.training.workdir import Workdir
from vireid_jax.types import UserError

_SIDE_BY_SIDE = TrainState(step=None, params=0, batch_stats=0, opt_state=0)  # axes of a state


class Replicas:
    """What `Experiment` is to one run, for those of `config.replicas`; states have a leading axis.

    Attributes:
      config: the frozen config.
      runs: the `Experiment` of each.
      devices, fingerprints, steps: those of every run.
    """

    def __init__(self, config):
        """Loads (and on first use prepares) the data, once for all.

        Raises:
          UserError: as `Experiment`; replicas of different counts, or weights of no loss here.
        """
        self.config = config
        configs = single_configs(config)
        self._all = Experiment(_largest_weights(configs))
        self.runs = [self._all.sibling(single) for single in configs]
        if config.replicas.pose and self._all.train_set.heatmaps is None:
            raise UserError(
                f"config.replicas.pose={config.replicas.pose}, but {config.data.dataset} has no "
                "heatmaps here, so that L_pose is left out: give config.data.heatmap_file, and no "
                "config.data.heatmaps=none"
            )
        self.devices, self.steps = self._all.devices, self._all.steps
        self.fingerprints = self._all.fingerprints

    check_devices = staticmethod(Experiment.check_devices)

    def init_state(self, whole: bool = False) -> TrainState:
        """The states at step 0; raises as `Experiment.init_state`."""
        states = [run.init_state(whole) for run in self.runs]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return stacked.replace(step=states[0].step)

    def abstract_state(self) -> TrainState:
        """Shapes and dtypes of a state."""
        one = self.runs[0].abstract_state()
        stacked = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(self.runs), *x.shape), x.dtype), one
        )
        return stacked.replace(step=one.step)

    def state_of(self, index: int, state: TrainState) -> TrainState:
        """The state of one run among those of all."""
        own = jax.tree.map(lambda x: x[index], state.replace(step=None))
        return own.replace(step=state.step)

    def batches(self) -> "StackedBatches":
        """This process's rows of every batch of all runs."""
        return StackedBatches([run.batches() for run in self.runs])

    def train_step(self):
        """The compiled step of all runs over all devices."""
        seeds = jnp.array([run.config.seed for run in self.runs])
        weights = {
            name: jnp.array([run.config.loss[name].weight for run in self.runs])
            for name, values in self.config.replicas.items()
            if values and name != "seed"
        }

        def update(state, batch):
            def one(state, batch, seed, weights):
                return self._all.update(seed, weights)(state, batch)

            return jax.vmap(one, (_SIDE_BY_SIDE, 1, 0, 0), (_SIDE_BY_SIDE, 0))(
                state, batch, seeds, weights
            )

        return self.devices.train_step(update)

    def log(self, workdir: Workdir, step: int) -> "Logs":
        """The logs of runs that continue after `step`.

        Raises:
          UserError: one of the folders holds a later state, of a run alone.
        """
        logs, locks = [], contextlib.ExitStack()
        for run, folder in self._folders(workdir):
            locks.enter_context(folder.alone())
            if (folder.newest or 0) > (workdir.newest or 0):
                raise UserError(
                    f"{folder.path} holds a run that was trained alone: train the others alone as "
                    "well (scripts: without --together), or use another --workdir"
                )
            with Checkpoints(folder.checkpoints) as own:
                own.forget_after(step)  # where that of all, the newest, is damaged
            folder.start(self.devices, self.fingerprints, self.steps)
            logs.append((run.log(folder, step), {"loss", "learning_rate", *run.terms}))
        return Logs(logs, locks)

    def observe(self, state: TrainState, workdir: Workdir, log: "Logs", last: bool) -> TrainState:
        """Between steps: as `Experiment.observe`, for each run."""
        for index, (run, folder) in enumerate(self._folders(workdir)):
            run.observe(self.state_of(index, state), folder, log.logs[index][0], last)
        return state

    def finish(self, state: TrainState, workdir: Workdir, trained: bool = True) -> list | None:
        """Evaluates each run, and leaves its folder as that of a run alone."""
        results = []
        for index, (run, folder) in enumerate(self._folders(workdir)):
            if trained:
                folder.evaluate_anew()
            own = jax.device_get(self.state_of(index, state))
            with Checkpoints(folder.checkpoints) as checkpoints:
                if (checkpoints.latest or 0) < int(own.step):
                    checkpoints.save(own)
            results.append(run.finish(own, folder, trained))
        return results if self.devices.first_process else None

    def _folders(self, workdir):
        for index, run in enumerate(self.runs):
            # `workdir` has compared the configs.
            yield run, workdir_of(workdir.path, index, run.config, allow_config_change=True)


class StackedBatches:
    """The batches of several runs, side by side along axis 1; axis 0 is split over devices."""

    def __init__(self, runs: list[loader.Batches]):
        """See the class."""
        self._runs = runs

    def __len__(self) -> int:
        return len(self._runs[0])

    def __getitem__(self, step: int):
        return jax.tree.map(lambda *rows: np.stack(rows, 1), *(run[step] for run in self._runs))


class Logs:
    """A `workdir.Log` for each run, and the names of what it logs; a value is one for each run."""

    def __init__(self, logs: list, locks: contextlib.ExitStack):
        """Keeps other trainings out of the runs' folders until it is closed."""
        self.logs, self._locks = logs, locks

    def write(self, step: int, values: dict[str, list[float]]) -> None:
        """Adds one line to each."""
        for index, (log, names) in enumerate(self.logs):
            log.write(step, {name: x[index] for name, x in values.items() if name in names})

    def time(self, step: int) -> None:
        """Adds steps per second to each, which are those of all runs together."""
        for log, _ in self.logs:
            log.time(step)

    def close(self) -> None:
        """Closes all."""
        for log, _ in self.logs:
            log.close()
        self._locks.close()


def workdir_of(folder: str | Path, index: int, config, **options) -> Workdir:
    """The folder of one run in that of all."""
    return Workdir(str(Path(folder) / f"replica_{index}"), config, **options)


def single_configs(config) -> list[ConfigDict]:
    """The config of each replica alone.

    Args:
      config: with values in `config.replicas`.

    Raises:
      UserError: keys with values for different numbers of runs, or for a loss that the config does
        not have.
    """
    given = {key: tuple(values) for key, values in config.replicas.items() if values}
    counts = {key: len(values) for key, values in given.items()}
    if len(set(counts.values())) > 1:
        named = ", ".join(f"config.replicas.{key} has {count}" for key, count in counts.items())
        raise UserError(f"{named}: give each one value for every run")
    for key in given.keys() - {"seed", *config.loss}:
        raise UserError(
            f"config.replicas.{key}={given[key]}, but config.loss has no {key} here: leave it out, "
            "or use the variant full"
        )
    configs = []
    for values in zip(*given.values(), strict=True):
        single = copy.deepcopy(config)
        for key, value in zip(given, values, strict=True):
            single.replicas[key] = ()
            if key == "seed":
                single.seed = value
            else:
                single.loss[key].weight = float(value)
        configs.append(single)
    return configs


def _largest_weights(configs):
    """One of them, with every loss that any of them has."""
    largest = copy.deepcopy(configs[0])
    for name, options in largest.loss.items():
        options.weight = max(own.loss[name].weight for own in configs)
    return largest
