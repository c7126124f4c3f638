"""From a prepared data set with keypoints to images in one frame, for the pose teacher."""

import io

import numpy as np
from PIL import Image

from vireid_jax.data import images
from vireid_jax.types import PoseSet, UserError

GREY = 128  # of borders
_INDEX = ("keypoints", "box", "modality", "path")


def load_poses(data, split: str, height: int, width: int) -> PoseSet:
    """All images of `split` with their keypoints, decoded once and memory-mapped from then on.

    Args:
      data: the config's `data` section, as in `images.load_images`.
      split: "train" (which is `train_split` of the stored ones) or another that the set has.
      height, width: of the frame, pixels.

    Raises:
      UserError: as `images.prepare`; the data set has no such split, or no keypoints.
    """
    builder = images.prepare(data)
    if "keypoints" not in builder.info.features:
        raise UserError(f"{data.dataset} has no keypoints to learn poses from: use lip")
    stored, pids = images.stored_split(builder, data, split)
    made_of = f"poses|{stored}|{pids}|{height}x{width}"
    source = builder.as_data_source(stored, decoders=images.ENCODED)
    folder = images.decoded(
        builder, data, split, made_of, lambda partial: _decode(source, pids, height, width, partial)
    )
    index = np.load(folder / "index.npz")
    return PoseSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        fingerprint=str(index["fingerprint"]),
        **{key: index[key] for key in _INDEX},
    )


def fit(size, height: int, width: int) -> tuple[int, int, int, int]:
    """Where an image of `size` (height, width) lies in a frame: top, left, height and width."""
    factor = min(height / size[0], width / size[1])
    h, w = (max(1, round(side * factor)) for side in size)
    return (height - h) // 2, (width - w) // 2, h, w


def _decode(source, pids, height, width, folder):
    """Writes images.npy and index.npz."""
    examples = [{k: v for k, v in example.items() if k != "image"} for example in source]
    wanted = [i for i, e in enumerate(examples) if pids is None or int(e["pid"]) in pids]
    examples = [examples[i] for i in wanted]
    index = {
        "keypoints": np.array([e["keypoints"] for e in examples], np.float32),
        "box": np.zeros((len(wanted), 4), np.int32),
        "modality": np.array([e["modality"] for e in examples], np.int32),
        "path": np.array([e["path"].decode() for e in examples]),
    }

    def row(i):
        with Image.open(io.BytesIO(source[wanted[i]]["image"])) as image:
            size = image.height, image.width
            box = top, left, h, w = fit(size, height, width)
            pixels = np.full((height, width, 3), GREY, np.uint8)
            fitted = image.convert("RGB").resize((w, h), Image.Resampling.BICUBIC)
            pixels[top : top + h, left : left + w] = fitted
        scale = np.array([w / size[1], h / size[0]])
        xy = index["keypoints"][i, :, :2]  # pixel centres are integers
        index["keypoints"][i, :, :2] = (xy + 0.5) * scale - 0.5 + (left, top)
        index["box"][i] = box
        return pixels

    decoded = images.decode(folder / "images.npy", len(wanted), (height, width, 3), row)
    fingerprint = images.fingerprint(*index.values(), images=decoded)
    np.savez(folder / "index.npz", **index, fingerprint=fingerprint)
