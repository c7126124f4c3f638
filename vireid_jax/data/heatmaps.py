"""Keypoints to heatmap targets. The joints are LIP's 16, in LIP's order."""

import json
from pathlib import Path

import numpy as np

from vireid_jax import registry
from vireid_jax.data import files
from vireid_jax.types import UserError

JOINTS = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax",
    "upper_neck", "head_top", "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow",
    "l_wrist",
)  # fmt: skip
MIRRORED = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)  # the joint that a flip makes
STRIDE = 4  # image pixels per heatmap cell
SHOWN = 0.1  # the maximum of a map from which on pictures show its joint
_SIGMA = 7 / 256  # of the pose teacher's targets, per image height
_CUT = 4.6052  # exponents beyond it (values below 1 %) are dropped, as in those targets


def channels(kind: str) -> int:
    """J of a `config.data.heatmaps`.

    1 for "merged", 16 for "joints", 17 for "joints_and_background", as the pose teacher has them, 0
    for "none".

    Raises:
      UserError: another value.
    """
    known = {"merged": 1, "joints": len(JOINTS), "joints_and_background": 17, "none": 0}
    return registry.choose("config.data.heatmaps", kind, known)


def keypoint_maps(keypoints, height: int, width: int, stride: int, sigma: float) -> np.ndarray:
    """One Gaussian exp(-d^2 / (2 sigma^2)) per joint, sampled at the cells' centres.

    Args:
      keypoints: float [n, 16, 3], of NumPy or JAX: x, y in pixels (0 is the centre of the first),
        visibility: 0 outside the image (no Gaussian), 1 hidden, 2 seen (both drawn).
      height, width: of the image, in pixels.
      stride: pixels per cell; the centre of cell m is at stride m + (stride - 1) / 2.
      sigma: in pixels.

    Returns:
      float32 [n, height / stride, width / stride, 16].
    """
    xp = keypoints.__array_namespace__()
    x, y, visible = xp.moveaxis(keypoints.astype(np.float32), -1, 0)[:, :, None]  # [n, 1, 16]

    def exponent(joint, size):
        cells = stride * np.arange(size // stride, dtype=np.float32) + (stride - 1) / 2
        return xp.square(cells[:, None] - joint) / (2 * sigma**2)  # [n, cells, 16]

    total = exponent(y, height)[:, :, None] + exponent(x, width)[:, None]
    return xp.where((visible[:, None] > 0) & (total <= _CUT), xp.exp(-total), 0)


def teacher_maps(keypoints, height: int, width: int) -> np.ndarray:
    """The pose teacher's targets: 16 joints at stride 8, sigma 7 pixels, and the background.

    Args:
      keypoints: as in `keypoint_maps`.
      height, width: of the images, in pixels; 256 in the published recipe.

    Returns:
      float32 [n, height / 8, width / 8, 17]; the background is 1 - the maximum over the joints.
    """
    return with_background(keypoint_maps(keypoints, height, width, stride=8, sigma=7.0))


def with_background(maps):
    """Maps of the joints [..., 16] and 1 - their maximum, [..., 17]."""
    xp = maps.__array_namespace__()
    return xp.concat([maps, 1 - maps.max(-1, keepdims=True)], axis=-1)


def targets(keypoints, height: int, width: int, kind: str) -> np.ndarray:
    """The heatmaps of ReID images, uint8 [n, height / 4, width / 4, J], 255 for 1.

    Sigma is that of the pose teacher's own targets, 7 pixels of a 256-pixel image. "merged" is
    the maximum over the joints.

    Args:
      keypoints: as in `keypoint_maps`.
      height, width: of the images, in pixels.
      kind: see `channels`.
    """
    maps = keypoint_maps(keypoints, height, width, STRIDE, _SIGMA * height)
    if kind == "merged":
        maps = maps.max(-1, keepdims=True)
    if kind == "joints_and_background":
        maps = with_background(maps)
    return np.round(255 * maps).astype(np.uint8)


def trial_suffix(data) -> str:
    """What names the trial in a file of heatmaps, where a data set (`config.data`) has trials."""
    return f"_trial{data.trial}" if "regdb" in (data.dataset, data.tier) else ""


def save(file: str | Path, path, maps, made_by: dict) -> None:
    """Writes heatmaps beside a data set, whole or not at all.

    Args:
      file: .npz.
      path: str [n], of the images, as the data set has them.
      maps: uint8 [n, h, w, J], 255 for 1.
      made_by: what made them and how, kept as JSON.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, path=np.asarray(path), heatmap=maps, made_by=json.dumps(made_by))
    partial.rename(file)


def load(file: str | Path, path, shape: tuple[int, int, int]) -> np.ndarray:
    """The heatmaps that `save` wrote, in the order of the images, uint8 [n, h, w, J].

    Args:
      file: .npz.
      path: str [n], of the images.
      shape: (h, w, J) of each. The background of J = 17 is made from 16 joints.

    Raises:
      UserError: no such file or array; an image without a heatmap; another shape or dtype.
    """
    try:
        with np.load(file) as archive:
            paths, maps = archive["path"], archive["heatmap"]
    except Exception as error:  # whatever a damaged file makes NumPy raise
        raise UserError(
            f"config.data.heatmap_file={file} is no npz file with the arrays path and heatmap"
        ) from error
    row = {p: i for i, p in enumerate(paths)}
    lacking = [p for p in path if p not in row]
    if lacking:
        raise UserError(
            f"config.data.heatmap_file={file} has no heatmap for {len(lacking)} of {len(path)} "
            f"images, the first is {lacking[0]}"
        )
    if shape[-1] == 17 and maps.dtype == np.uint8 and maps.shape[-1] == len(JOINTS):
        maps = np.concat([maps, 255 - maps.max(-1, keepdims=True)], axis=-1)
    if maps.shape != (len(paths), *shape) or maps.dtype != np.uint8:
        raise UserError(
            f"config.data.heatmap_file={file} holds {maps.dtype} maps of {maps.shape[1:]}; the "
            f"config needs uint8 of {shape}"
        )
    return maps[[row[p] for p in path]]


def from_cache(file: str | Path, count: int, size: tuple[int, int]) -> np.ndarray:
    """One of the published code's files of merged heatmaps, as `save` takes them.

    Args:
      file: .npy, [n, H, W], [n, H, W, 1] or [n, 1, H, W], H x W the image size or a quarter of it,
        of whole numbers up to 255 or of fractions up to 1.
      count: of the images that it should be for.
      size: (h, w), a quarter of the image size.

    Returns:
      uint8 [n, h, w, 1]; maps at image size are averaged over blocks of 4 x 4.

    Raises:
      UserError: no such array; another count or size; a value that is not in range.
    """
    maps = files.array(file)
    if maps.dtype != np.uint8 and not np.issubdtype(maps.dtype, np.floating):
        raise UserError(f"{file} holds {maps.dtype}, where bytes or fractions should be")
    h, w = size
    whole = STRIDE * h, STRIDE * w
    block = {size: 1, whole: STRIDE}.get(tuple(side for side in maps.shape[1:] if side != 1))
    if len(maps) != count or block is None:
        raise UserError(
            f"{file} holds {len(maps)} maps of {maps.shape[1:]}, but the data set has {count} "
            f"images there and needs maps of {size} or {whole}: make it anew from these images"
        )
    unit = 255 if maps.dtype == np.uint8 else 1
    result = np.empty((count, h, w, 1), np.uint8)
    for i, own in enumerate(maps):
        own = np.asarray(own, np.float32).reshape(h, block, w, block).mean((1, 3)) / unit
        if not (own >= 0).all() or not (own <= 1).all():
            raise UserError(
                f"{file}: map {i} has values that are not from 0 to {unit}: make it anew"
            )
        result[i, ..., 0] = np.round(255 * own)
    return result
