"""Synthetic visible-infrared pedestrians, rendered on the user's own machine.

Source: `vireid_jax.data.synthetic`, no download. Licence: Apache-2.0, like the code that draws
them. Results on synthetic people show how a method behaves here; they stand for no real data
set.
"""

import dataclasses
import io
import os
import shutil
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from vireid_jax import registry
from vireid_jax.data.builder import Builder
from vireid_jax.data.synthetic.farm import RENDERER_VERSION, read_pictures, render_tier
from vireid_jax.data.synthetic.tiers import (
    EASY,
    REGDB,
    REGDB_TRIALS,
    SYSU,
    TIERS,
    Tier,
    regdb_trial_ids,
)
from vireid_jax.types import UserError


@dataclasses.dataclass(eq=False)
class SyntheticConfig(tfds.core.BuilderConfig):
    """A tier at one size.

    Attributes:
      name: derived from the rest, `easy_96x48`; with `_seed1` for another seed than 0.
      tier: `vireid_jax.data.synthetic.tiers.Tier`.
      height, width: of the images, pixels.
      seed: of the whole data set: people, cameras, places, images.
      processes: that render, default one per core; no part of the data.
    """

    name: str = ""
    tier: Tier = EASY
    height: int = 96
    width: int = 48
    seed: int = 0
    processes: int | None = None

    def __post_init__(self):
        suffix = f"_seed{self.seed}" if self.seed else ""
        self.name = self.name or f"{self.tier.name}_{self.height}x{self.width}{suffix}"


class SyntheticVi(Builder):
    """Rendered people seen by visible and infrared cameras, with exact keypoints.

    | tier | split: identities | images | cameras |
    |---|---|---|---|
    | `easy` | train: 128, test: 64 | 2,560 and 1,280 | visible 1, 2; near infrared 3, 6 |
    | `sysu` | train: 296, val: 99, test: 96 | 10,936, 3,568 and 3,368 with seed 0 | visible \
1, 2, 4, 5; near infrared 3, 6 |
    | `regdb` | everyone: 412 | 8,240 | visible 7; long-wave infrared 8 |

    In `sysu`, as in SYSU-MM01, not every camera saw everyone: 0.6 of the people were indoors
    (cameras 1 to 3), and a tenth of the other pairs of person and camera are missing.

    Protocols: `easy` and `sysu` as SYSU-MM01 (infrared queries search a visible gallery; camera 3
    skips camera 2, since both stand at one place); `regdb` as RegDB, where each of ten trials
    splits the 412 identities in halves (`tiers.regdb_trial_ids`).

    Features: those of `Builder`, and `keypoints` float32 [16, 3]: x, y in pixels with pixel
    centres at integers, and visibility 0 outside, 1 hidden, 2 seen, in LIP order.
    """

    VERSION = tfds.core.Version(f"{RENDERER_VERSION}.1.0")
    EXTRA_FEATURES: ClassVar = {
        "keypoints": tfds.features.Tensor(shape=(16, 3), dtype=np.float32, encoding="bytes")
    }
    BUILDER_CONFIGS: ClassVar = [
        SyntheticConfig(tier=tier, height=height, width=width)
        for height, width in ((96, 48), (288, 144))
        for tier in (EASY, SYSU, REGDB)
    ]

    def download_and_prepare(self, **kwargs):
        """Renders and writes the data set, unless it is there; an interrupted call continues.

        The rendered files are kept under `download_dir` until all records are written.
        """
        super().download_and_prepare(**kwargs)
        scratch = getattr(self, "_scratch", None)
        if scratch is not None:
            shutil.rmtree(scratch)

    def _split_generators(self, dl_manager):
        config = self.builder_config
        self._scratch = os.path.join(dl_manager.download_dir, self.name, config.name)
        files = render_tier(
            config.tier, config.height, config.width, config.seed, self._scratch, config.processes
        )
        return {split: self._generate_examples(paths) for split, paths in files.items()}

    def _generate_examples(self, paths):
        cameras = {camera.camid: camera for camera in self.builder_config.tier.cameras}
        for path in paths:
            for picture in read_pictures(path):
                example = picture.example
                yield (
                    example.path,
                    {
                        "image": io.BytesIO(picture.png),
                        "pid": example.pid,
                        "label": -1 if example.split == "test" else example.pid - 1,
                        "camid": example.camid,
                        "modality": cameras[example.camid].modality,
                        "path": example.path,
                        "keypoints": picture.keypoints,
                    },
                )


def builder(data) -> SyntheticVi:
    """The builder of a config's `data` section: `tier`, `height`, `width` and `dir`.

    Raises:
      UserError: an unknown tier, or another tier's protocol.
    """
    tier = registry.choose("config.data.tier", data.tier, TIERS)
    protocol = "regdb" if tier is REGDB else "sysu"
    if data.protocol != protocol:
        raise UserError(f"tier {tier.name} is evaluated with --config.data.protocol={protocol}")
    config = SyntheticConfig(tier=tier, height=data.height, width=data.width)
    config = SyntheticVi.builder_configs.get(config.name, config)  # TFDS wants its own by name
    return SyntheticVi(config=config, data_dir=data.dir)


def subset(data, split: str) -> tuple[str, list[int] | None]:
    """The stored split that holds `split`, and the pids that belong to it (None: all).

    The `regdb` tier is stored whole; `data.trial` says which half is which.

    Raises:
      UserError: no such trial; of that tier another split than "train" and "test".
    """
    if data.tier != REGDB.name:
        return split, None
    if not 1 <= data.trial <= REGDB_TRIALS:
        raise UserError(f"config.data.trial={data.trial}: the trials are 1 to {REGDB_TRIALS}")
    halves = dict(zip(("train", "test"), regdb_trial_ids(data.trial), strict=True))
    return "everyone", registry.choose(f"tier {data.tier}: split", split, halves)
