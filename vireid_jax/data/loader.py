"""Batches, gathered from memory and placed by background threads, in the order of the steps."""

from collections.abc import Callable, Iterator

import grain
import numpy as np

from vireid_jax.data.sampler import PKSampler
from vireid_jax.types import Batch, ImageSet


class Batches:
    """The training batches of a run as a random-access sequence; item i is that of step i."""

    def __init__(
        self, image_set: ImageSet, sampler: PKSampler, steps: int, own: slice = slice(None)
    ):
        """See the class.

        Args:
          image_set: the training images.
          sampler: which of them make a batch.
          steps: the length of the sequence.
          own: the rows of a batch, of either modality, that are wanted here.
        """
        self._images, self._sampler, self._steps, self._own = image_set, sampler, steps, own

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        label, rgb, ir = (rows[self._own] for rows in self._sampler[int(step)])
        maps = self._images.heatmaps
        return Batch(
            rgb=np.asarray(self._images.images[rgb]),
            ir=np.asarray(self._images.images[ir]),
            label=label,
            rgb_heatmap=None if maps is None else np.asarray(maps[rgb]),
            ir_heatmap=None if maps is None else np.asarray(maps[ir]),
        )


def iterate(batches: Batches, start: int, place: Callable[[Batch], Batch]) -> Iterator[Batch]:
    """The batches from step `start` on, read and placed ahead by background threads.

    A few of them are on the devices at a time, beside the one that is in use.

    Args:
      batches: of the run.
      start: steps done.
      place: what brings one to the devices, `Devices.place`.
    """
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(grain.MapDataset.source(batches)[start:].map(place).to_iter_dataset(options))
