"""Search by a trained run: embeds the images of any folder, ranks, pictures what was found."""

import functools
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from vireid_jax.data import files, images, own_images
from vireid_jax.data.heatmaps import JOINTS, SHOWN, STRIDE
from vireid_jax.evaluation import page, search_page
from vireid_jax.evaluation.feature_store import FeatureStore
from vireid_jax.evaluation.features import in_batches
from vireid_jax.evaluation.nearest import nearest
from vireid_jax.evaluation.search_page import Hit, Picture, Query
from vireid_jax.models.part_heads import FEATURE_NORM
from vireid_jax.training import pose_maps, step
from vireid_jax.training.devices import Devices
from vireid_jax.training.trained import Trained
from vireid_jax.types import Modality

_HEIGHT = 288  # pixels of a picture on the page


class Images:
    """Images of one modality with the features that a trained run gives them."""

    def __init__(self, trained: Trained, source: str, modality: Modality, cache: Path):
        """Embeds, in batches on all devices, what `cache` does not hold yet.

        Args:
          trained: the network.
          source: see `own_images.find`.
          modality: of all images.
          cache: folder for features, by the network and the content of files.

        Raises:
          UserError: no image there, or a file that is none.
        """
        self._root, self.entries = own_images.find(source, modality)
        self._trained, self._modality = trained, modality
        self._threads, self._devices = ThreadPoolExecutor(os.cpu_count()), Devices()
        self._variables = self._devices.replicate(trained.variables)
        self._feature, width = list(trained.feature_sizes.items())[-1]
        own = cache / f"{_identity(trained)}_{modality.name.lower()}"
        self._store = FeatureStore(own, width)
        self._rows = self._store.rows(self._hashes(), self._embed, self._batch)

    def __len__(self) -> int:
        return len(self.entries)

    def features(self, numbers) -> np.ndarray:
        """The widest features of some of the images, float32 [numbers, F]."""
        return self._store.read(self._rows[numbers])

    def parts(self, numbers) -> np.ndarray:
        """The same by branch (identity, pose) and part, each of length 1: [numbers, ., P, F]."""
        model = self._trained.config.model
        found = self.features(numbers) / FEATURE_NORM
        return found.reshape(len(found), -1, model.parts, model.features)

    def pictures(self, numbers: list[int]) -> dict[int, Picture]:
        """Some of the images by their numbers, with what the pose branch sees in them."""
        found, (height, width) = {}, self._trained.size
        for start in tqdm(range(0, len(numbers), self._batch), "pictures", leave=False):
            own = numbers[start : start + self._batch]
            shown = self._decoded(own, _HEIGHT, round(_HEIGHT * width / height))
            heat, joints = [None] * len(own), [{}] * len(own)
            if self._trained.learned_poses:
                maps = self._run(self._heatmaps, self._decoded(own, height, width))
                maps = maps[..., : len(JOINTS)]  # without the background, where there is one
                heat, joints = map(search_page.heat, maps.max(-1)), _joints(maps)
            for number, image, hot, places in zip(own, shown, heat, joints, strict=True):
                entry = self.entries[number]
                pid = None if entry.pid == own_images.UNKNOWN else entry.pid
                image = page.data_url(image)
                found[number] = Picture(entry.path, pid, entry.camid, image, hot, places)
        return found

    @property
    def _batch(self):
        return self._trained.config.evaluation.batch * self._devices.here

    def _hashes(self):
        paths = [self._root / entry.path for entry in self.entries]
        hashes = self._threads.map(lambda file: hashlib.sha1(file.read_bytes()).digest(), paths)
        return list(tqdm(hashes, "reading", len(paths), unit="img", leave=False))

    def _decoded(self, numbers, height, width):
        def decode(number):
            encoded = files.encoded(self._root, self.entries[number].path)
            return images.resized(encoded.getvalue(), height, width)

        return np.stack(list(self._threads.map(decode, numbers)))

    def _embed(self, numbers):
        decoded = self._decoded(numbers, *self._trained.size)
        return self._run(self._features, decoded)[self._feature]

    def _run(self, function, decoded):
        computed = functools.partial(function, self._variables)
        rows = np.arange(len(decoded))
        ((_, found),) = in_batches(computed, rows, self._batch, decoded.__getitem__)
        return found

    @functools.cached_property
    def _features(self):
        return self._devices.embed(self._trained.embed(self._modality))

    @functools.cached_property
    def _heatmaps(self):
        grey = self._trained.config.augment.grey
        function = step.make_heatmaps(self._trained.network, self._modality, grey)
        return self._devices.embed(function)


def search(queries: Images, gallery: Images, count: int) -> list[Query]:
    """The `count` nearest gallery images of every query, ready to show."""
    rows, _ = nearest(
        queries.features(slice(None)),
        lambda start, stop: gallery.features(slice(start, stop)),
        len(gallery),
        count,
    )
    asked = queries.pictures(list(range(len(queries))))
    shown = gallery.pictures(np.unique(rows).tolist())
    found = []
    for number, near in enumerate(rows):
        cosine = (queries.parts([number]) * gallery.parts(near)).sum(-1)  # [k, ., P]
        hits = [Hit(shown[row], own) for row, own in zip(near.tolist(), cosine, strict=True)]
        found.append(Query(asked[number], hits))
    return found


def _identity(trained):
    """Of all that features depend on beside the image."""
    config = trained.config
    made_by = [trained.size, config.dtype, config.model.to_dict()]
    made_by += [config.augment.grey, trained.flip_averaging]
    digest = hashlib.sha1(json.dumps(made_by, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained.variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:12]


def _joints(maps):
    """{joint: (x, y) as fractions} of each image, empty where the maps do not tell joints apart."""
    count, h, w, channels = maps.shape
    if channels < len(JOINTS):
        return [{}] * count
    frame = np.tile([0, 0, h * STRIDE, w * STRIDE], (count, 1))
    places = (np.asarray(pose_maps.highest(maps, frame, STRIDE)) + 0.5) / (w * STRIDE, h * STRIDE)
    return [
        {joint: xy for joint, xy, seen in zip(JOINTS, own, clear, strict=True) if seen}
        for own, clear in zip(places.tolist(), maps.max((1, 2)) > SHOWN, strict=True)
    ]
