"""Cameras: where they hang, how they see, and the detector-like box around a person.

Camera numbers, bands and shared locations follow SYSU-MM01 (1-6: visible 1, 2, 4, 5 and near
infrared 3, 6, with 2 and 3 at one place); 7 and 8 are a visible and a long-wave camera side by
side, as in RegDB.
"""

import dataclasses
import enum
import functools

import numpy as np

from vireid_jax.data.synthetic.arrays import rotation_y, unit
from vireid_jax.data.synthetic.figure import Figure
from vireid_jax.data.synthetic.streams import Purpose, stream


class Band(enum.Enum):
    """What a camera's sensor responds to."""

    VISIBLE = "visible"
    NEAR_INFRARED = "near infrared, lit from the camera"
    LONG_WAVE = "long-wave (thermal) infrared"


class Facing(enum.Enum):
    """Which way a person walks, before the spread of `Camera.yaw_sd`."""

    ANY = "any direction"
    CAMERA = "towards the camera"
    BY_IDENTITY = "towards or away from the camera, always the same for one identity"


@dataclasses.dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
      camid: its number in the data set.
      band: its sensor.
      location: the place it looks at; equal numbers share a panorama.
      outdoor: whether that place has foliage.
      height, distance: ranges, metres, of the camera above the ground and from the person.
      native_rows: range of the height of a person's box on the sensor, pixels.
      facing, yaw_sd: the direction people walk in, and its standard deviation in degrees.
    """

    camid: int
    band: Band
    location: int
    outdoor: bool
    height: tuple[float, float]
    distance: tuple[float, float]
    native_rows: tuple[float, float]
    facing: Facing = Facing.ANY
    yaw_sd: float = 0.0

    @property
    def modality(self) -> int:
        """0 for visible, 1 for either infrared band."""
        return int(self.band is not Band.VISIBLE)


_NEAR, _LONG = Band.NEAR_INFRARED, Band.LONG_WAVE
CAMERAS = {
    camera.camid: camera
    for camera in (
        Camera(1, Band.VISIBLE, 1, False, (2.0, 2.5), (3.0, 5.5), (150, 330)),
        Camera(2, Band.VISIBLE, 2, False, (1.8, 2.3), (3.0, 5.5), (150, 330)),
        Camera(3, _NEAR, 2, False, (1.8, 2.3), (3.0, 5.5), (140, 300)),
        Camera(4, Band.VISIBLE, 4, True, (3.0, 4.2), (6.0, 11.0), (90, 220)),
        Camera(5, Band.VISIBLE, 5, True, (2.6, 3.8), (6.0, 12.0), (90, 240)),
        Camera(6, _NEAR, 6, True, (2.4, 3.4), (5.0, 10.0), (90, 230)),
        Camera(7, Band.VISIBLE, 7, True, (2.4, 2.8), (7.0, 10.0), (100, 140)),
        Camera(8, _LONG, 7, True, (2.4, 2.8), (7.0, 10.0), (100, 140)),
    )
}


@dataclasses.dataclass(frozen=True)
class Look:
    """What stays the same in all images of one camera.

    Attributes:
      white_balance, tint: [3], gains and offsets of the colour channels.
      gamma, gain: of the tone curve and the exposure.
      sun: azimuth of the main light about the vertical, radians, 0 behind the camera.
      ambient: share of the light that comes from everywhere.
      blur: standard deviation of the optics, pixels at 288 rows.
      noise: standard deviation per native pixel, of full scale 1.
      vignetting: loss at the corners.
    """

    white_balance: np.ndarray
    tint: np.ndarray
    gamma: float
    gain: float
    sun: float
    ambient: float
    blur: float
    noise: float
    vignetting: float


@functools.lru_cache(maxsize=64)
def draw_look(seed: int, camid: int) -> Look:
    """The look of a camera."""
    rng = stream(seed, Purpose.CAMERA_LOOK, camid)
    return Look(
        white_balance=np.exp(rng.normal(0, 0.06, 3)).astype(np.float32),
        tint=(0.3 * rng.normal(0, 0.02, 3)).astype(np.float32),
        gamma=rng.uniform(0.85, 1.2),
        gain=rng.uniform(0.85, 1.15),
        sun=rng.uniform(-1.2, 1.2),
        ambient=rng.uniform(0.3, 0.6),
        blur=rng.uniform(0.35, 0.8),
        noise=rng.uniform(0.008, 0.02),
        vignetting=rng.uniform(0.1, 0.5),
    )


@dataclasses.dataclass(frozen=True)
class Pose:
    """A camera beside one person, in that person's frame.

    Attributes:
      position: [3], metres.
      axes: [3, 3], rows are the camera's right, up and backward directions.
      turn: [3, 3], takes directions of the street (z from the person to the camera's pole, y up)
        to the person frame.
    """

    position: np.ndarray
    axes: np.ndarray
    turn: np.ndarray

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slopes (right, up) of the rays to points [n, 3], and their depths in metres, [n]."""
        local = (points - self.position) @ self.axes.T
        depth = -local[:, 2]
        return local[:, 0] / depth, local[:, 1] / depth, depth


def draw_pose(camera: Camera, rng: np.random.Generator, yaw: float, body_height: float) -> Pose:
    """Places the camera, aimed at the middle of a person who has turned by `yaw` radians."""
    height, distance = rng.uniform(*camera.height), rng.uniform(*camera.distance)
    position = np.array([rng.uniform(-0.25, 0.25) * distance, height, distance])
    back = unit(position - np.array([0.0, 0.5 * body_height, 0.0]))
    right = unit(np.cross([0.0, 1.0, 0.0], back))
    turn = rotation_y(-yaw)
    axes = np.stack([right, np.cross(back, right), back])
    return Pose(position=turn @ position, axes=axes @ turn.T, turn=turn)


def draw_yaw(camera: Camera, rng: np.random.Generator, seed: int, pid: int) -> float:
    """The direction a person walks in, radians; 0 is towards the camera."""
    if camera.facing is Facing.ANY:
        return rng.uniform(-np.pi, np.pi)
    yaw = np.deg2rad(rng.normal(0, camera.yaw_sd))
    if camera.facing is Facing.BY_IDENTITY and stream(seed, Purpose.FACING, pid).random() < 0.5:
        yaw += np.pi
    return yaw


@dataclasses.dataclass(frozen=True)
class Crop:
    """The box, resized to the image: column = focal[0] * right slope + centre[0], and downwards.

    Attributes:
      focal: pixels per unit slope along x and y; unequal, since a box is stretched to the image.
      centre: x, y of slope 0, with pixel edges at integers.
    """

    focal: tuple[float, float]
    centre: tuple[float, float]

    def to_pixels(self, right: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes to x, y in pixels (pixel edges at integers)."""
        return (
            right * self.focal[0] + self.centre[0],
            self.centre[1] - up * self.focal[1],
        )


STRETCH_LIMITS = (0.72, 1.3)  # of the horizontal scale against the vertical
NARROWEST_BOX = 0.36  # width over height


def draw_crop(
    rng: np.random.Generator, pose: Pose, figure: Figure, height: int, width: int
) -> Crop:
    """A box as a detector draws it, a little too large or small, off centre and off shape.

    Args:
      rng: this image's view stream.
      pose: of the camera.
      figure: in the person frame.
      height, width: of the image, pixels.
    """
    right, up, depth = pose.see(np.concatenate([figure.start, figure.end]))
    reach = np.tile(figure.radii.max(axis=1), 2) / depth
    left, rightmost = (right - reach).min(), (right + reach).max()
    bottom, top = (up - reach).min(), (up + reach).max()
    box_height = (top - bottom) * np.exp(rng.normal(0.06, 0.05))
    middle_y = 0.5 * (bottom + top) + rng.normal(0, 0.022) * box_height
    box_width = max(1.06 * (rightmost - left), NARROWEST_BOX * box_height)
    # Half way to the usual 1:2 shape, as annotated boxes are.
    box_width = (0.5 * box_width + 0.25 * box_height) * np.exp(rng.normal(0, 0.06))
    middle_x = 0.5 * (left + rightmost) + rng.normal(0, 0.03) * box_width
    focal_y = height / box_height
    low, high = STRETCH_LIMITS
    focal_x = float(np.clip(width / box_width, low * focal_y, high * focal_y))
    centre = (0.5 * width - middle_x * focal_x, 0.5 * height + middle_y * focal_y)
    return Crop(focal=(focal_x, focal_y), centre=centre)
