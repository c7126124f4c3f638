"""Identity-balanced batches: M = 2 D K images, D identities with K of each modality."""

import dataclasses

import numpy as np

from vireid_jax.types import ImageSet, Modality, UserError


@dataclasses.dataclass(frozen=True)
class PKSampler:
    """Plans batch i as a pure function of (seed, i): no state to save, none to lose.

    D identities are drawn at every step, and K images of each in either modality, all without
    replacement (paper, Sec. III-E); an identity with fewer than K images shows each of them before
    any again.

    Attributes:
      rows: for each trainable identity, its label and its image rows by modality.
      identities: D.
      images: K.
      seed: any non-negative integer.
    """

    rows: list[tuple[int, np.ndarray, np.ndarray]]
    identities: int
    images: int
    seed: int

    @classmethod
    def of(cls, image_set: ImageSet, identities: int, images: int, seed: int) -> "PKSampler":
        """The sampler over the identities of `image_set`.

        Labels are the positions of the pids in ascending order.

        Raises:
          UserError: fewer identities than D; one that only one modality shows.
        """
        rows = []
        for label, pid in enumerate(np.unique(image_set.pid)):
            own = [
                np.flatnonzero((image_set.pid == pid) & (image_set.modality == modality))
                for modality in Modality
            ]
            for modality, found in zip(Modality, own, strict=True):
                if not len(found):
                    raise UserError(
                        f"training identity {pid} has no {modality.name.lower()} image: add one, "
                        "or take it out of the training split"
                    )
            rows.append((label, *own))
        if len(rows) < identities:
            raise UserError(
                f"config.batch.identities={identities}, but the training split has only "
                f"{len(rows)} identities: use at most {len(rows)}"
            )
        return cls(rows, identities, images, seed)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns label int32 [D K] in runs of K, and the rows of RGB and IR images, [D K]."""
        rng = np.random.default_rng([self.seed, step])
        drawn = rng.choice(len(self.rows), self.identities, replace=False)
        label = np.repeat([self.rows[i][0] for i in drawn], self.images).astype(np.int32)
        rgb, ir = (
            np.concatenate([self._draw(rng, self.rows[i][modality]) for i in drawn])
            for modality in (1, 2)
        )
        return label, rgb, ir

    def _draw(self, rng, rows):
        return np.resize(rng.permutation(rows), self.images)


def steps_per_epoch(image_set: ImageSet, batch: int) -> int:
    """floor(N / B) + 1 with N the images of the larger modality, as the published code counts.

    Args:
      image_set: the training images.
      batch: B = D K, images per modality and step.
    """
    return int(np.bincount(image_set.modality).max()) // batch + 1
