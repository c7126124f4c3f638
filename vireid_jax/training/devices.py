"""The one room that knows pmap, replication and how a batch is split."""

from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vireid_jax.types import UserError

AXIS = "devices"


class Devices:
    """All local devices, or the first `count`.

    State is replicated without a leading axis; batches are split into equal runs of rows.
    """

    def __init__(self, count: int | None = None):
        """See the class."""
        self.all = jax.local_devices()[:count]

    def __len__(self) -> int:
        return len(self.all)

    def check_identities(self, identities: int) -> None:
        """Refuses a D that the devices cannot share.

        Raises:
          UserError: not a multiple of the device count.
        """
        if identities % len(self):
            near = max(1, round(identities / len(self))) * len(self)
            raise UserError(
                f"config.batch.identities={identities} cannot be split over {len(self)} devices "
                f"by whole identities: use a multiple of {len(self)}, such as {near}"
            )

    def replicate(self, tree):
        """A copy of `tree` on every device, for the `state` of the functions below."""
        mesh = Mesh(np.array(self.all), (AXIS,))
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

    def train_step(self, function):
        """Maps (state, batch) -> (state, metrics); `state` is donated.

        `function` must return the same state and metrics on every device.
        """
        mapped = partial(
            jax.pmap, axis_name=AXIS, in_axes=(None, 0), out_axes=None, devices=self.all
        )(function, donate_argnums=0)
        return lambda state, batch: mapped(state, jax.tree.map(self._split, batch))

    def embed(self, function):
        """Maps (variables, rows) -> rows of results, on the host."""
        mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=self.all)

        def embed(variables, rows):
            result = mapped(variables, self._split(rows))
            return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), result)

        return embed

    def _split(self, x):
        return x.reshape(len(self), -1, *x.shape[1:])
