"""From a prepared data set to decoded images, memory-mapped at the training resolution."""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from vireid_jax import registry
from vireid_jax.data import heatmaps
from vireid_jax.data.builder import ManualBuilder
from vireid_jax.types import ImageSet, UserError

_INDEX = ("pid", "camid", "modality")
_ENCODED = {"image": tfds.decode.SkipDecoding()}


def prepare(data) -> tfds.core.DatasetBuilder:
    """The prepared builder of a config's `data` section; converts or renders on first use.

    Raises:
      UserError: unknown data set; its source is missing or damaged; `dir` cannot be written.
    """
    builder = _module(data).builder(data)
    if isinstance(builder, ManualBuilder):
        builder.require(data)
    if builder.is_prepared():
        return builder
    with _alone(data.dir):
        builder = _module(data).builder(data)  # another run may have prepared it meanwhile
        if not builder.is_prepared():
            manual = tfds.download.DownloadConfig(manual_dir=data.source or None)
            try:
                builder.download_and_prepare(download_config=manual)
            except RuntimeError as error:
                if "write() failed" in str(error):  # ArrayRecord's words for a full disk
                    raise OSError(error) from error
                raise
    return builder


def load_images(data, split: str) -> ImageSet:
    """All images of `split`, decoded once and memory-mapped from then on.

    Args:
      data: the config's `data` section: `dataset`, its options, `dir`, `height`, `width`,
        `train_split`, `heatmaps` ("merged", "joints" or "none") and `heatmap_file`.
      split: "train" (which is `train_split` of the stored ones), "val" or "test".

    Returns:
      The images. Those of "train" have heatmaps, from `heatmap_file` where one is given, else from
      the data set's keypoints; without either, and in the other splits, they are None.

    Raises:
      UserError: as `prepare`; a split that the data set does not have; an image without its
        heatmap in `heatmap_file`.
    """
    builder = prepare(data)
    module = _module(data)
    stored, pids = data.train_split if split == "train" else split, None
    if hasattr(module, "subset"):
        stored, pids = module.subset(data, split)
    if unknown := set(stored.split("+")) - set(builder.info.splits):
        known = ", ".join(builder.info.splits)
        raise UserError(f"{data.dataset} has no split {min(unknown)!r}; it has: {known}")
    # The names of what it is made of, so that a change of one never meets a stale folder.
    targets = f"{data.heatmaps}|{_identity_of(data)}" if split == "train" else ""
    made_of = f"{stored}|{pids}|{data.height}x{data.width}|{targets}"
    name = f"{split}_{hashlib.sha1(made_of.encode()).hexdigest()[:12]}"
    folder = Path(builder.data_dir) / "decoded" / name
    if not folder.exists():
        with _alone(data.dir):
            if not folder.exists():  # another run may have made it meanwhile
                source = builder.as_data_source(stored, decoders=_ENCODED)
                _decode(source, data, pids, folder, bool(targets))
    index = np.load(folder / "index.npz")
    maps = folder / "heatmaps.npy"
    return ImageSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        heatmaps=np.load(maps, mmap_mode="r") if maps.exists() else None,
        fingerprint=str(index["fingerprint"]),
        **{key: index[key] for key in (*_INDEX, "path")},
    )


@contextlib.contextmanager
def _alone(folder):
    """While other runs on the same data wait; an interrupted run's lock goes with its process.

    Raises:
      UserError: the folder cannot be written, or its disk is full.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(Path(folder) / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(
            f"config.data.dir={folder} cannot be written ({error}): free space there or choose "
            "another; what was half-written is not taken for data"
        ) from error


def _identity_of(data):
    """Name, size and time of the heatmap file, which may be written anew under its old name."""
    if not data.heatmap_file:
        return ""
    file = Path(data.heatmap_file)
    if not file.is_file():
        raise UserError(f"config.data.heatmap_file={file} does not exist")
    return f"{file}|{file.stat().st_size}|{file.stat().st_mtime_ns}"


def _module(data):
    return registry.find("vireid_jax.data.datasets", data.dataset, "data set")


def _decode(source, data, pids, folder, with_heatmaps):
    """Writes images.npy, index.npz and perhaps heatmaps.npy; the folder appears when complete."""
    examples = [{k: v for k, v in example.items() if k != "image"} for example in source]
    wanted = [i for i, e in enumerate(examples) if pids is None or int(e["pid"]) in pids]
    examples = [examples[i] for i in wanted]
    index = {key: np.array([e[key] for e in examples], np.int32) for key in _INDEX}
    index["path"] = np.array([e["path"].decode() for e in examples])
    maps = None
    if with_heatmaps:
        maps = _heatmaps(data, index["path"], [e.get("keypoints") for e in examples])
    digest = hashlib.sha1()
    for part in (*index.values(), maps):
        digest.update(repr(None if part is None else (part.dtype, part.shape)).encode())
        digest.update(b"" if part is None else np.ascontiguousarray(part))
    folder.parent.mkdir(exist_ok=True)
    for stale in folder.parent.glob("*.partial*"):  # of runs that were killed
        shutil.rmtree(stale)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.partial"))
    shape = len(wanted), data.height, data.width, 3
    images = np.lib.format.open_memmap(partial / "images.npy", "w+", np.uint8, shape)
    with open(partial / "images.npy", "r+b") as file:  # a full disk is an error here, later a crash
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)

    def decode(row):
        images[row] = _resized(source[wanted[row]]["image"], data.height, data.width)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        rows = threads.map(decode, range(len(wanted)))
        list(tqdm(rows, f"decoding {folder.name}", len(wanted), unit="img", leave=False))
    for image in images:
        digest.update(image)
    images.flush()
    if maps is not None:
        np.save(partial / "heatmaps.npy", maps)
    np.savez(partial / "index.npz", **index, fingerprint=digest.hexdigest())
    partial.rename(folder)


def _resized(encoded, height, width):
    with Image.open(io.BytesIO(encoded)) as image:
        image = image.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(image)


def _heatmaps(data, path, keypoints):
    size = data.height // heatmaps.STRIDE, data.width // heatmaps.STRIDE
    wanted = heatmaps.channels(data.heatmaps)
    if not wanted:
        return None
    if data.heatmap_file:
        return heatmaps.load(data.heatmap_file, path, (*size, wanted))
    if not path.size or keypoints[0] is None:
        return None
    return heatmaps.targets(np.stack(keypoints), data.height, data.width, data.heatmaps)
