"""Checkpoints of a run: asynchronous and atomic, by Orbax."""

import contextlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from vireid_jax.training.state import TrainState
from vireid_jax.types import UserError


class Checkpoints:
    """The newest two checkpoints, or the best, in `folder`; use as a context, which ends when all
    are written.
    """

    def __init__(self, folder: Path, read_only: bool = False, best: bool = False):
        """Opens `folder`, which need not exist.

        Args:
          folder: of the checkpoints.
          read_only: neither create it nor remove what an interrupted save left.
          best: keep the one of the highest score.

        Raises:
          UserError: `read_only`, and there is no such folder.
        """
        if read_only and not folder.is_dir():
            raise UserError(f"no checkpoint in {folder}: train first (--mode=train)")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1 if best else 2,
            best_fn=(lambda metrics: metrics["score"]) if best else None,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._folder, self._best, self._damaged = folder.absolute(), best, []
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.wait()
        self._manager.close()

    def wait(self) -> None:
        """Until all that was saved is written.

        Raises:
          UserError: it cannot be.
        """
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self):
        """Around calls that write or report on what is written in the background."""
        try:
            yield
        except (ValueError, OSError) as error:  # tensorstore reports a full disk as the former
            if isinstance(error, ValueError) and "Error writing" not in str(error):
                raise
            whole = [int(x.name) for x in self._folder.iterdir() if x.name.isdigit()]
            reason = str(error).rsplit(": ", 1)[-1]
            raise UserError(
                f"a checkpoint in {self._folder} could not be written ({reason}); the last one "
                f"there is of step {max(whole, default=None)}. Make room and repeat the command, "
                "which continues from it"
            ) from error

    @property
    def latest(self) -> int | None:
        """The step of the newest (the best) checkpoint that is not known to be damaged, or None."""
        if self._best:
            return self._manager.best_step()
        return max(set(self._manager.all_steps()) - set(self._damaged), default=None)

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        self.wait()
        for later in self._manager.all_steps():
            if later > step:
                self._manager.delete(later)

    def save(self, state: TrainState, score: float | None = None) -> None:
        """Copies `state` and writes it in the background; nothing if its step is saved already.

        Args:
          state: on the devices or on the host.
          score: of the state, where the best is kept.

        Raises:
          UserError: `state` holds a NaN or an infinity; this checkpoint, or the one before, cannot
            be written.
        """
        step = int(state.step)
        if step not in set(self._manager.all_steps()) - set(self._damaged):
            host = jax.tree.map(np.asarray, state)
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(host)):
                raise UserError(
                    f"the parameters after step {step} are not finite and are not saved; the last "
                    f"checkpoint is of step {self.latest}. Try a lower "
                    "config.optimizer.learning_rate in another --workdir"
                )
            metrics = {"score": score} if self._best else None
            with self._writing():
                while self._damaged:
                    self._manager.delete(self._damaged.pop())
                args = ocp.args.StandardSave(host)
                if not self._manager.save(step, args=args, metrics=metrics):
                    raise ValueError(f"step {step} is not after {self.latest}, the last one saved")

    def variables(self) -> tuple[int, dict]:
        """The step and the {"params": ..., "batch_stats": ...} that `restore` would find, whatever
        their network; raises as it does.
        """
        step, state = self._newest_readable(None)
        return step, {name: state[name] for name in ("params", "batch_stats")}

    def restore(self, like: TrainState) -> TrainState:
        """The newest checkpoint that can be read, as arrays on the host.

        Newer ones that are damaged are named in a warning; the next `save` deletes them.

        Args:
          like: a state of the same structure; shapes and dtypes suffice.

        Raises:
          UserError: there is none, or none fits `like`.
        """
        return self._newest_readable(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like))[1]

    def _newest_readable(self, like):
        if self.latest is None:
            raise UserError(f"no checkpoint in {self._folder}: train first (--mode=train)")
        saved = sorted(self._manager.all_steps(), reverse=True)
        if self._best or jax.process_count() > 1:  # processes must not choose differently
            saved = [self.latest]
        damaged = []
        for step in saved:
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(like))
                if like is None or jax.tree.map(np.shape, state) == jax.tree.map(np.shape, like):
                    break
            except (ValueError, KeyError, OSError):
                pass  # tensorstore's for damaged data, Orbax's for another structure
            damaged.append(step)
        else:
            raise UserError(
                f"checkpoint {self._folder / str(self.latest)} does not fit the network of this "
                "config and data, or is damaged: use the config, the data and the version of this "
                "package that it was trained with"
            )
        for other in damaged:
            tqdm.write(
                f"warning: checkpoint {self._folder / str(other)} is damaged; "
                f"using that of step {step}"
            )
        self._damaged = damaged
        return step, state
