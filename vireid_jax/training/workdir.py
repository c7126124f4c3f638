"""The folder of a run: what it was, where it ran, what it logged and what came out."""

import contextlib
import fcntl
import importlib.metadata
import json
import platform
import subprocess
import time
from pathlib import Path

import jax
from tqdm import tqdm

from vireid_jax.training.events import Event, EventsWriter, SessionLog, summary
from vireid_jax.types import UserError

# Where things lie, how often they are written and how they are evaluated: a run may change these
# as it continues (what data it had is compared by content; results.json says how it was evaluated).
BOOKKEEPING = {
    "config.data.dir",
    "config.data.source",
    "config.train.remat",
    "config.train.keep_memory",
    "config.train.log_every",
    "config.train.checkpoint_every",
    "config.train.eval_every",
    *(f"config.evaluation.{key}" for key in ("batch", "shots", "galleries")),
    *(f"config.evaluation.{key}" for key in ("flip_averaging", "re_ranking")),
}
EVALUATIONS = "evaluations.jsonl"  # of evaluations between steps
PAGE = "report.html"  # what a run writes last
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


class Busy(UserError):
    """Another training works in the folder."""


class Workdir:
    """A run's folder; files appear in it by rename, so that none is ever half-written.

    Of the processes of one run the first alone writes.
    """

    def __init__(self, folder: str, config, allow_config_change: bool = False):
        """Opens the folder of this run, which need not exist yet.

        Args:
          folder: of the run.
          config: of this call.
          allow_config_change: take another config than the run began with, and say what differs.

        Raises:
          UserError: the folder belongs to a run with another config, bookkeeping apart; names the
            keys.
        """
        self.path, self._writes = Path(folder), jax.process_index() == 0
        self._config = json.loads(config.to_json())
        file = self.path / "config.json"
        self._began_with = json.loads(file.read_text()) if file.exists() else self._config
        different = sorted(set(differences(self._began_with, self._config)) - BOOKKEEPING)
        if different and allow_config_change:
            tqdm.write(f"{file} is of a run with another config: {', '.join(different)}")
        elif different:
            raise UserError(
                f"{file} is of a run with another config; these keys differ: "
                f"{', '.join(different)}. Use another --workdir, that config, or "
                "--allow_config_change"
            )

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The folder of the best checkpoint, where one is selected."""
        return self.path / "best"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to continue from."""
        return self.newest is not None

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint, damaged or not, or None."""
        steps = (int(x.name) for x in self.checkpoints.glob("*") if x.name.isdigit())
        return max(steps, default=None)

    @contextlib.contextmanager
    def alone(self):
        """While no other training works in the folder; a dead process holds nothing.

        Raises:
          Busy: another one does.
        """
        if not self._writes:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(
                    f"another run works in {self.path}: wait for it, or use another --workdir"
                ) from error
            yield

    def log(self, step: int) -> "Log | Silence":
        """The logs of a run that continues after `step`."""
        return Log(self.path, step) if self._writes else Silence()

    def check_data(self, data: dict[str, str]) -> None:
        """Compares the fingerprints of a run's splits with those it began with.

        Raises:
          UserError: they differ.
        """
        file = self.path / "environment.json"
        theirs = json.loads(file.read_text())["data"] if file.exists() else {}
        if any(theirs[split] != data[split] for split in theirs.keys() & data.keys()):
            raise UserError(
                f"{self.path} is of a run on other data (see {file}): use another --workdir"
            )

    def write(self, name: str, content) -> None:
        """Writes `content` as JSON."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Writes a file of text."""
        if not self._writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f"{name}.partial"
        partial.write_text(text)
        partial.rename(self.path / name)

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end, and was evaluated there by this call's config."""
        names = "environment.json", "config.json"
        if not all((self.path / name).exists() for name in (*names, PAGE)):
            return False
        environment, config = (json.loads((self.path / name).read_text()) for name in names)
        last = self.checkpoints / str(environment.get("steps"))
        return last.is_dir() and config["evaluation"] == self._config["evaluation"]

    def evaluate_anew(self) -> None:
        """Records that the run is evaluated by this call's config from now on."""
        self._record(self._began_with | {"evaluation": self._config["evaluation"]})

    def _record(self, config):
        if self._writes:  # the page is of the config before
            (self.path / PAGE).unlink(missing_ok=True)
        self.write("config.json", config)

    def start(self, devices, data: dict[str, str], steps: int) -> None:
        """Creates the folder, with config.json and environment.json.

        Args:
          devices: of the run.
          data: fingerprints of its splits.
          steps: of the whole run.

        Raises:
          UserError: the folder's run was on other data.
        """
        self.check_data(data)
        self._began_with = self._config
        self._record(self._config)
        self.write(
            "environment.json",
            {
                "python": platform.python_version(),
                "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
                "device": devices.all[0].device_kind,
                "devices": len(devices),
                "processes": devices.processes,
                "git": _git_revision(),
                "steps": steps,
                "data": data,
            },
        )


def differences(a: dict, b: dict, prefix: str = "config"):
    """Keys under which two nested dicts differ."""
    for key in a.keys() | b.keys():
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            yield from differences(x, y, f"{prefix}.{key}")
        elif x != y:
            yield f"{prefix}.{key}"


class Log:
    """The jsonl files and TensorBoard events of a run; no step is twice in one of them.

    What depends on the hour is in throughput.jsonl alone; the others repeat themselves to the bit.
    All are written by the caller's own thread, so that a full disk is an OSError at the step that
    met it (tensorboardX's `SummaryWriter` would lose its thread and then block).
    """

    def __init__(self, folder: Path, step: int):
        """Opens the logs of a run that continues after `step`; later lines are dropped."""
        self._lines = _continued(folder / "metrics.jsonl", step)
        self._rates = _continued(folder / "throughput.jsonl", step)
        self._evaluations = _continued(folder / EVALUATIONS, step)
        self._passed = None  # the last step that was timed, and when
        (folder / "tensorboard").mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "tensorboard" / "events"))
        restart = SessionLog(status=SessionLog.START)  # readers drop later steps of earlier files
        self._events.write_event(Event(step=step + 1, session_log=restart))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one line: {"step": step, **values}."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._add(step, f"train/{name}", value)

    def time(self, step: int) -> None:
        """Adds steps per second since the call before; the first one's would hold a compilation.

        What happens between steps, as evaluation and waits for a checkpoint, is in it.
        """
        now = time.monotonic()
        if self._passed:
            before, then = self._passed
            rate = (step - before) / (now - then)
            self._rates.write(json.dumps({"step": step, "steps_per_second": rate}) + "\n")
            self._add(step, "train/steps_per_second", rate)
        self._passed = step, now

    def write_results(self, step: int, protocols: dict, split: str = "test") -> None:
        """Adds an evaluation on `split`: one line, and its mean figures to the events."""
        self._evaluations.write(json.dumps({"step": step, "split": split, **protocols}) + "\n")
        for protocol, features in protocols.items():
            for feature, figures in features.items():
                if feature != "trials":
                    for figure, value in figures.items():
                        tag = f"{split}/{protocol}/{feature}/{figure}"
                        self._add(step, tag, value["mean"])
        self._events.flush()

    def _add(self, step, tag, value):
        scalar = summary.scalar(tag, value)
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar))

    def close(self) -> None:
        """Flushes and closes all."""
        self._lines.close()
        self._rates.close()
        self._evaluations.close()
        self._events.close()


class Silence:
    """Stands for a `Log` in the processes that write nothing."""

    def write(self, step, values):
        """Does nothing, as the others."""

    def time(self, step):
        """Does nothing, as the others."""

    def write_results(self, step, protocols, split="test"):
        """Does nothing, as the others."""

    def close(self):
        """Does nothing, as the others."""


def read_lines(file: Path) -> list[dict]:
    """The whole lines of a log; [] where there is none."""
    # The last line may be torn; it is then of a later step than any checkpoint.
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _continued(file, step):
    """A log without its lines after `step`, open at its end."""
    kept = [line for line in read_lines(file) if line["step"] <= step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.rename(file)
    return file.open("a", buffering=1)


def _git_revision():
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
