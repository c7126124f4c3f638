"""The words that every room shares: modalities, image sets, batches, network outputs.

Shape letters: `B` images per modality in a batch (D identities x K images), `P` parts, `N`
training identities, `F` features per part, `H, W` image size, `h, w` heatmap size (H/4, W/4),
`J` heatmap channels (1 merged, 16 joints, or 17 with the background), `n` images of a set.
"""

import dataclasses
import enum
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct


class Modality(enum.IntEnum):
    """The camera's spectrum. Every infrared band (near or long wave) is INFRARED."""

    VISIBLE = 0
    INFRARED = 1


class UserError(Exception):
    """A mistake in what the user gave; its one message names the cause and the fix (exit 2)."""


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """The decoded images of one split, resized to the training resolution, on the host.

    Attributes:
      images: uint8 [n, H, W, 3], RGB; infrared images repeat their one channel. May be a memmap.
      pid: int32 [n], the data set's own identity numbers.
      camid: int32 [n], the data set's own camera numbers.
      modality: int32 [n], values of `Modality`.
      path: str [n], unique within the data set.
      heatmaps: uint8 [n, h, w, J] keypoint maps (0..255 stands for 0..1), or None without.
      fingerprint: a hash over all of it; empty where nobody took one.
    """

    images: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    modality: np.ndarray
    path: np.ndarray
    heatmaps: np.ndarray | None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.pid)


@dataclasses.dataclass(frozen=True)
class PoseSet:
    """The images of one split with their keypoints, fitted into one frame, on the host.

    Attributes:
      images: uint8 [n, H, W, 3], RGB: each fills the frame in one direction and has grey borders in
        the other. May be a memmap.
      keypoints: float32 [n, 16, 3], LIP's joints: x, y in pixels of the frame (0 is the centre of
        the first), visibility: 0 missing, 1 hidden, 2 seen.
      box: int32 [n, 4]: top, left, height and width of what is not border.
      modality: int32 [n], values of `Modality`.
      path: str [n], unique within the data set.
      fingerprint: a hash over all of it.
    """

    images: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray
    modality: np.ndarray
    path: np.ndarray
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.path)


@struct.dataclass
class PoseBatch:
    """Some rows of a `PoseSet`: images, keypoints and box, as there."""

    images: Any
    keypoints: Any
    box: Any


@struct.dataclass
class Batch:
    """One training batch; row i of `rgb` and row i of `ir` carry the same identity.

    Attributes:
      rgb, ir: uint8 [B, H, W, 3].
      label: int32 [B], 0..N-1, in D runs of K equal labels.
      rgb_heatmap, ir_heatmap: uint8 [B, h, w, J], or None for data without heatmaps.
    """

    rgb: Any
    ir: Any
    label: Any
    rgb_heatmap: Any = None
    ir_heatmap: Any = None


@struct.dataclass
class Targets:
    """What the losses compare `Outputs` with; rows as there.

    Attributes:
      label: int32 [2B], RGB rows then IR rows in the same order.
      heatmap: float32 [2B, h, w, J] in [0, 1], or None.
      axis_name: the mapped axis over which the batch is split by identity, or None.
    """

    label: Any
    heatmap: Any = None
    axis_name: str | None = struct.field(pytree_node=False, default=None)


@struct.dataclass
class Outputs:
    """What the network returns. Batch rows are RGB then IR: 2B in training.

    The pose fields are None for variants without a pose branch, `teacher_logits` without a
    teacher. Intermediates carry the paper's symbols.

    Attributes:
      id_logits, pose_logits: [P, 2B, N].
      id_features, pose_features: [P, 2B, F], the normalised part features 5 f / |f|.
      teacher_logits: [2B, N] of PCB_T (Eq. 14).
      heatmap: H-hat, [2B, h, w, J] (Eq. 4).
      F_S: modality-shared features (Eq. 1).
      F_p1, F_p2: pose features before refinement (Eq. 2).
      F_R: refined keypoint features (Eq. 3).
      F_P: final keypoint features (Eq. 6).
      M: the mask in [0, 1] (Eq. 7).
      F_id2: identity features before the mask (Eq. 8).
      F_ID: identity features after the mask (Eq. 9).
    """

    id_logits: Any
    id_features: Any
    F_S: Any
    F_id2: Any
    F_ID: Any
    pose_logits: Any = None
    pose_features: Any = None
    teacher_logits: Any = None
    heatmap: Any = None
    F_p1: Any = None
    F_p2: Any = None
    F_R: Any = None
    F_P: Any = None
    M: Any = None

    @property
    def logits(self):
        """The logits of each branch that there is, [P, 2B, N] each."""
        return [x for x in (self.id_logits, self.pose_logits) if x is not None]

    @property
    def features(self):
        """The part features of each branch that there is, [P, 2B, F] each."""
        return [x for x in (self.id_features, self.pose_features) if x is not None]

    @property
    def f_ID(self):
        """Eq. 12: the P identity features of each image side by side, [2B, P F]."""
        return _parts_in_a_row(self.id_features)

    @property
    def f_ALL(self):
        """Eq. 13: [f_ID, f_P], [2B, 2 P F]; None without a pose branch."""
        if self.pose_features is None:
            return None
        return _parts_in_a_row(jnp.concatenate(self.features))


def _parts_in_a_row(features):
    parts, rows, width = features.shape
    return features.transpose(1, 0, 2).reshape(rows, parts * width)
