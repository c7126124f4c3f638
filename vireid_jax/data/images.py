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
ENCODED = {"image": tfds.decode.SkipDecoding()}


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


def load_images(data, split: str, with_heatmaps: bool = False) -> ImageSet:
    """All images of `split`, decoded once and memory-mapped from then on.

    Args:
      data: the config's `data` section: `dataset`, its options, `dir`, `height`, `width`,
        `train_split`, `heatmaps` (see `heatmaps.channels`) and `heatmap_file`.
      split: "train" (which is `train_split` of the stored ones), "val" or "test".
      with_heatmaps: whatever the split.

    Returns:
      The images. Those of "train" have heatmaps, from `heatmap_file` where one is given, else from
      the data set's keypoints; without either, and as a rule in the other splits, they are None.

    Raises:
      UserError: as `prepare`; a split that the data set does not have; an image without its
        heatmap in `heatmap_file`.
    """
    builder = prepare(data)
    stored, pids = stored_split(builder, data, split)
    # The names of what it is made of, so that a change of one never meets a stale folder.
    wanted = split == "train" or with_heatmaps
    targets = f"{data.heatmaps}|{_identity_of(data)}" if wanted else ""
    made_of = f"{stored}|{pids}|{data.height}x{data.width}|{targets}"
    source = builder.as_data_source(stored, decoders=ENCODED)
    folder = decoded(
        builder, data, split, made_of, lambda partial: _decode(source, data, pids, partial, targets)
    )
    index = np.load(folder / "index.npz")
    maps = folder / "heatmaps.npy"
    return ImageSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        heatmaps=np.load(maps, mmap_mode="r") if maps.exists() else None,
        fingerprint=str(index["fingerprint"]),
        **{key: index[key] for key in (*_INDEX, "path")},
    )


def stored_split(builder, data, split: str) -> tuple[str, list[int] | None]:
    """The stored split that holds `split`, and the pids that belong to it (None: all).

    Raises:
      UserError: a split that the data set does not have.
    """
    module = _module(data)
    stored, pids = data.train_split if split == "train" else split, None
    if hasattr(module, "subset"):
        stored, pids = module.subset(data, stored)
    if unknown := set(stored.split("+")) - set(builder.info.splits):
        known = ", ".join(builder.info.splits)
        raise UserError(f"{data.dataset} has no split {min(unknown)!r}; it has: {known}")
    return stored, pids


def decoded(builder, data, split: str, made_of: str, write) -> Path:
    """The folder of a split's decoded images, which appears when complete.

    Args:
      builder: of the data set.
      data: the config's section.
      split: for its name.
      made_of: all that its content depends on.
      write: called once with a folder to fill.
    """
    name = f"{split}_{hashlib.sha1(made_of.encode()).hexdigest()[:12]}"
    folder = Path(builder.data_dir) / "decoded" / name
    if not folder.exists():
        with _alone(data.dir):
            if not folder.exists():  # another run may have made it meanwhile
                folder.parent.mkdir(exist_ok=True)
                for stale in folder.parent.glob("*.partial*"):  # of runs that were killed
                    shutil.rmtree(stale)
                partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{name}.partial"))
                write(partial)
                partial.rename(folder)
    return folder


def decode(file: Path, count: int, shape: tuple[int, ...], row) -> np.ndarray:
    """Writes uint8 [count, *shape] to `file`, `row(i)` for each i, by several threads."""
    images = np.lib.format.open_memmap(file, "w+", np.uint8, (count, *shape))
    with open(file, "r+b") as opened:  # a full disk is an error here, later a crash
        os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)

    def fill(i):
        images[i] = row(i)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        rows = threads.map(fill, range(count))
        list(
            tqdm(rows, f"decoding {file.parent.name.split('.')[0]}", count, unit="img", leave=False)
        )
    images.flush()
    return images


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
    """Writes images.npy, index.npz and perhaps heatmaps.npy."""
    examples = [{k: v for k, v in example.items() if k != "image"} for example in source]
    wanted = [i for i, e in enumerate(examples) if pids is None or int(e["pid"]) in pids]
    examples = [examples[i] for i in wanted]
    index = {key: np.array([e[key] for e in examples], np.int32) for key in _INDEX}
    index["path"] = np.array([e["path"].decode() for e in examples])
    maps = None
    if with_heatmaps:
        maps = _heatmaps(data, index["path"], [e.get("keypoints") for e in examples])
    size = data.height, data.width
    images = decode(
        folder / "images.npy",
        len(wanted),
        (*size, 3),
        lambda row: resized(source[wanted[row]]["image"], *size),
    )
    if maps is not None:
        np.save(folder / "heatmaps.npy", maps)
    digest = fingerprint(*index.values(), maps, images=images)
    np.savez(folder / "index.npz", **index, fingerprint=digest)


def fingerprint(*parts: np.ndarray | None, images) -> str:
    """A hash over arrays and images."""
    digest = hashlib.sha1()
    for part in parts:
        digest.update(repr(None if part is None else (part.dtype, part.shape)).encode())
        digest.update(b"" if part is None else np.ascontiguousarray(part))
    for image in images:
        digest.update(image)
    return digest.hexdigest()


def resized(encoded: bytes, height: int, width: int) -> np.ndarray:
    """An image file's content as uint8 [height, width, 3], resized by Lanczos."""
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
