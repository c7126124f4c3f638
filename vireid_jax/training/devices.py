"""The one room that knows pmap, processes, replication and how a batch is split."""

import atexit
import contextlib
import ctypes
import os
import platform
import sys
from functools import partial

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vireid_jax.types import UserError

AXIS = "devices"

# None of YNNPACK's operations: its convolutions keep to one core where XLA's own share them all,
# and in jaxlib 0.10.2 it has summed wrongly (jax-ml/jax#39103) and crashed (#39257, #40412).
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
_CPU_FLAGS = " ".join(f"--{name}={value}" for name, value in _CPU_OPTIONS.items())

# Of glibc's mallopt, for a heap that never shrinks.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROWTH = 64 << 20  # bytes that the heap grows by at a time


@contextlib.contextmanager
def connected():
    """Joins the processes of one run while it is entered, before anything else of JAX is used.

    On a cluster that JAX knows (SLURM, Kubernetes, Open MPI, Cloud TPU) it finds them by itself.
    Elsewhere the environment names them: JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID. Only the first process goes on to print; enter this
    before tqdm is imported. A process that fails inside does not wait for the others, which then
    fail as well.

    Raises:
      UserError: they cannot be found, or do not answer.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_CPU_FLAGS}"  # see `_program`
    names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours, see `signals`
    try:
        given = {key: int(os.environ[name]) for key, name in names.items() if name in os.environ}
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {error}. Start it by the cluster's own launcher, or set "
            f"JAX_COORDINATOR_ADDRESS, {', '.join(names.values())} for every process"
        ) from error
    if jax.process_index():
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # At exit JAX waits for the others, which wait for this one. The last registered runs first.
        atexit.register(_leave, 2 if isinstance(error, UserError) else 1)
        raise


def _leave(status):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def keep_memory(wanted: bool) -> None:
    """If `wanted`, from now on this process keeps the memory that it frees, on CPUs under glibc.

    Otherwise it returns that of a program's intermediate results behind each call, and the system
    clears it again for the next. Only the heap of the first thread can hold so much: call this
    before anything of JAX is used, and programs run on the thread that calls them. With several
    devices in a process they do not, and nothing is gained. Settings of glibc count no longer.
    """
    if wanted and platform.libc_ver()[0] == "glibc":
        # Read once, when the next line starts the backends.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        if jax.default_backend() == "cpu":
            glibc = ctypes.CDLL(None)
            glibc.mallopt(_M_MMAP_MAX, 0)
            glibc.mallopt(_M_TRIM_THRESHOLD, -1)  # the largest size there is
            glibc.mallopt(_M_TOP_PAD, _GROWTH)


class Devices:
    """The devices of all processes, or the first `count` of the only one.

    State is replicated without a leading axis; batches are split into equal runs of rows, a run for
    each process and in it one for each of its devices.
    """

    def __init__(self, count: int | None = None):
        """See the class; None counts all."""
        self.all = jax.devices()[:count]
        self._own = jax.local_devices()[:count]
        self._mesh = Mesh(np.array(self._own), (AXIS,))
        self._by_rows = NamedSharding(self._mesh, PartitionSpec(AXIS))
        self._compiled_ahead = self.all[0].platform == "cpu" and self.processes == 1

    def __len__(self) -> int:
        return len(self.all)

    @property
    def axis(self) -> str | None:
        """What functions for `train_step` average over; None on one device.

        There every average would be an operation that others wait for.
        """
        return AXIS if len(self) > 1 else None

    @property
    def here(self) -> int:
        """How many are this process's own."""
        return len(self._own)

    @property
    def processes(self) -> int:
        """How many share the run."""
        return jax.process_count()

    @property
    def first_process(self) -> bool:
        """Whether this is the one that evaluates, logs and writes."""
        return jax.process_index() == 0

    @contextlib.contextmanager
    def first_process_first(self):
        """The other processes enter when the first one has left, by an error or without."""
        if not self.first_process:
            self.wait_for_all("first process")
        try:
            yield
        finally:
            if self.first_process:
                self.wait_for_all("first process")

    def wait_for_all(self, what: str) -> None:
        """Until every process has come to `what`."""
        if self.processes > 1:
            multihost_utils.sync_global_devices(what)

    def largest(self, value: int) -> int:
        """The largest `value` of all processes; each of them has to ask."""
        if self.processes == 1:
            return value
        return int(multihost_utils.process_allgather(np.int32(value)).max())

    def of_first_process(self, value: float) -> float:
        """The `value` of the first process, in float32 where there are more."""
        if self.processes == 1:
            return value
        return float(multihost_utils.broadcast_one_to_all(np.float32(value)))

    def own_rows(self, count: int) -> slice:
        """Which of the `count` rows of a batch are this process's."""
        share = count // self.processes
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def check_identities(self, identities: int) -> None:
        """Refuses a D that the devices cannot share.

        Raises:
          UserError: not a multiple of the device count.
        """
        count = len(self)
        if identities % count:
            near = [x for x in (identities // count * count, -(-identities // count) * count) if x]
            fitting = [n for n in range(1, count) if identities % n == 0]
            raise UserError(
                f"config.batch.identities={identities} cannot be split over {count} devices by "
                f"whole identities: use {' or '.join(map(str, near))} identities, or "
                f"{' or '.join(map(str, fitting))} devices (CUDA_VISIBLE_DEVICES)"
            )

    def replicate(self, tree):
        """A copy of `tree` on every device here, for the `state` of the functions below."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def train_step(self, function):
        """Maps (state, this process's rows from `place`) -> (state, metrics); `state` is donated.

        `function` must return the same state and metrics on every device. It is compiled once, at
        the first call; later ones must have the same shapes.
        """
        return self._program(self._map(function))

    def compile(self, function, state, batch) -> jax.stages.Compiled:
        """The program of `train_step` for arguments like these; it takes batches of `place`.

        For one process, see `_program`.
        """
        return self._compile(self._map(function), state, self.place(batch))

    def embed(self, function):
        """A generator: (variables, rows of each batch) -> rows of results of each, in order.

        By this process alone, results on the host. While one is fetched the next is computed
        (not under `keep_memory`), so that it takes a batch before it gives the results of the last.
        All have the same shapes.
        """
        mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=self._own)
        program = self._program(mapped)

        def embed(variables, batches):
            ahead = None
            for rows in batches:
                behind, ahead = ahead, program(variables, self.place(rows))
                for x in jax.tree.leaves(ahead):
                    x.copy_to_host_async()
                if behind is not None:
                    yield _joined(behind)
            if ahead is not None:
                yield _joined(ahead)

        return embed

    def _map(self, function):
        mapped = partial(
            jax.pmap, axis_name=AXIS, in_axes=(None, 0), out_axes=None, devices=self.all
        )
        return mapped(function, donate_argnums=0)

    def _program(self, mapped):
        """`mapped`, on the CPUs of one process compiled at the first call.

        Compiled ahead, a mapped function takes arrays of all processes only: several have
        `_CPU_FLAGS` instead.
        """
        if not self._compiled_ahead:
            return mapped
        compiled = None

        def program(state, rows):
            nonlocal compiled
            compiled = compiled or self._compile(mapped, state, rows)
            return compiled(state, rows)

        return program

    def _compile(self, mapped, *arguments):
        options = _CPU_OPTIONS if self._compiled_ahead else {}
        return mapped.lower(*arguments).compile(compiler_options=options)

    def place(self, rows):
        """This process's rows [n, ...] as [devices, n / devices, ...], put on its devices.

        By any thread, while a program runs. On CPUs they have arrived when this returns: rows on
        their way move a computation to a thread whose heap is too small for `keep_memory`. With
        several processes they stay on the host, since a mapped function takes arrays of all.
        """
        split = jax.tree.map(lambda x: x.reshape(self.here, -1, *x.shape[1:]), rows)
        if self.processes > 1:
            return split
        placed = jax.device_put(split, self._by_rows)
        return jax.block_until_ready(placed) if self._compiled_ahead else placed


def _joined(results):
    """Arrays of all devices' rows on the host, the opposite of `place`."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), results)
