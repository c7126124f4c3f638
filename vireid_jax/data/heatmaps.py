"""Keypoints to heatmap targets. The joints are LIP's 16, in LIP's order."""

import numpy as np

from vireid_jax.types import UserError

JOINTS = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax",
    "upper_neck", "head_top", "r_wrist", "r_elbow", "r_shoulder", "l_shoulder", "l_elbow",
    "l_wrist",
)  # fmt: skip
MIRRORED = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)  # the joint that a flip makes
STRIDE = 4  # image pixels per heatmap cell
_SIGMA = 7 / 256  # of the pose teacher's targets, per image height
_CUT = 4.6052  # exponents beyond it (values below 1 %) are dropped, as in those targets


def channels(kind: str) -> int:
    """J of a `config.data.heatmaps`: 1 for "merged", 16 for "joints", 0 for "none".

    Raises:
      UserError: another value.
    """
    known = {"merged": 1, "joints": len(JOINTS), "none": 0}
    if kind not in known:
        raise UserError(f"config.data.heatmaps={kind!r} is unknown; known: {', '.join(known)}")
    return known[kind]


def keypoint_maps(keypoints, height: int, width: int, stride: int, sigma: float) -> np.ndarray:
    """One Gaussian exp(-d^2 / (2 sigma^2)) per joint, sampled at the cells' centres.

    Args:
      keypoints: float [n, 16, 3]: x, y in pixels (0 is the centre of the first), visibility: 0
        outside the image (no Gaussian), 1 hidden, 2 seen (both drawn).
      height, width: of the image, in pixels.
      stride: pixels per cell; the centre of cell m is at stride m + (stride - 1) / 2.
      sigma: in pixels.

    Returns:
      float32 [n, height / stride, width / stride, 16].
    """
    x, y, visible = np.moveaxis(np.asarray(keypoints, np.float32), -1, 0)[:, :, None]  # [n, 1, 16]

    def exponent(joint, size):
        cells = stride * np.arange(size // stride, dtype=np.float32) + (stride - 1) / 2
        return np.square(cells[:, None] - joint) / (2 * sigma**2)  # [n, cells, 16]

    total = exponent(y, height)[:, :, None] + exponent(x, width)[:, None]
    return np.where((visible[:, None] > 0) & (total <= _CUT), np.exp(-total), 0)


def teacher_maps(keypoints, height: int, width: int) -> np.ndarray:
    """The pose teacher's targets: 16 joints at stride 8, sigma 7 pixels, and the background.

    Args:
      keypoints: as in `keypoint_maps`.
      height, width: of the images, in pixels; 256 in the published recipe.

    Returns:
      float32 [n, height / 8, width / 8, 17]; the background is 1 - the maximum over the joints.
    """
    maps = keypoint_maps(keypoints, height, width, stride=8, sigma=7.0)
    return np.concatenate([maps, 1 - maps.max(-1, keepdims=True)], -1)


def targets(keypoints, height: int, width: int, kind: str) -> np.ndarray:
    """The heatmaps of ReID images, uint8 [n, height / 4, width / 4, J], 255 for 1.

    Sigma is that of the pose teacher's own targets, 7 pixels of a 256-pixel image. "merged" is
    the maximum over the joints.

    Args:
      keypoints: as in `keypoint_maps`.
      height, width: of the images, in pixels.
      kind: "merged" or "joints".
    """
    maps = keypoint_maps(keypoints, height, width, STRIDE, _SIGMA * height)
    if channels(kind) == 1:
        maps = maps.max(-1, keepdims=True)
    return np.round(255 * maps).astype(np.uint8)
