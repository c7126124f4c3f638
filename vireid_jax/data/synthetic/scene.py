"""Places: one panorama per location in all bands, windows cut from it, and things in the way."""

import dataclasses
import functools

import numpy as np

from vireid_jax.data.synthetic.arrays import noise_field, resample
from vireid_jax.data.synthetic.camera import Band, Camera
from vireid_jax.data.synthetic.streams import Purpose, stream

PANORAMA_ROWS, PANORAMA_COLUMNS = 480, 1600


@dataclasses.dataclass(frozen=True)
class Panorama:
    """One location.

    Attributes:
      bands: reflectance or emission by band, float32 [480, 1600, c], c = 3 if visible, else 1.
      horizon: row where the floor begins.
    """

    bands: dict[Band, np.ndarray]
    horizon: int


class _Canvas:
    """Rectangles of random materials, painted in all bands at once."""

    def __init__(self, rng):
        self.rng = rng
        shape = (PANORAMA_ROWS, PANORAMA_COLUMNS)
        self.visible = np.zeros((*shape, 3), np.float32)
        self.near = np.zeros((*shape, 1), np.float32)
        self.long = np.zeros((*shape, 1), np.float32)

    def material(self):
        """A colour, a near-infrared reflectance and an emission: three independent draws."""
        rng = self.rng
        colour = np.clip(rng.uniform(0.1, 0.8) * (1 + rng.normal(0, 0.22, 3)), 0.03, 0.95)
        return colour, rng.uniform(0.1, 0.85), rng.uniform(0.05, 0.3)

    def rectangle(self, left, top, right, bottom, material=None):
        area = np.s_[max(0, int(top)) : max(0, int(bottom)), max(0, int(left)) : max(0, int(right))]
        material = material or self.material()
        self.visible[area], self.near[area], self.long[area] = material


@functools.lru_cache(maxsize=16)
def panorama(seed: int, location: int, outdoor: bool) -> Panorama:
    """Builds the panorama of a location; the same for all identities and cameras."""
    rng = stream(seed, Purpose.LOCATION, location)
    horizon = int(PANORAMA_ROWS * rng.uniform(0.42, 0.6))
    canvas = _Canvas(rng)
    canvas.rectangle(0, 0, PANORAMA_COLUMNS, horizon)
    canvas.rectangle(0, horizon, PANORAMA_COLUMNS, PANORAMA_ROWS)
    _build_wall(canvas, rng, horizon)
    _place_furniture(canvas, rng, horizon)
    _draw_floor_lines(canvas, rng, horizon)
    if outdoor:
        _grow_foliage(canvas, rng, horizon)

    def grain(cell):
        return noise_field(rng, PANORAMA_ROWS, PANORAMA_COLUMNS, cell)[..., None]

    dirt = 0.5 * (grain(9) + grain(31))
    canvas.visible *= 0.75 + 0.5 * dirt
    canvas.near *= 0.75 + 0.5 * grain(11)
    canvas.long *= 0.85 + 0.3 * dirt
    bands = {
        Band.VISIBLE: canvas.visible,
        Band.NEAR_INFRARED: canvas.near,
        Band.LONG_WAVE: canvas.long,
    }
    return Panorama(bands, horizon)


def _build_wall(canvas, rng, horizon):
    """Panels side by side; some have rows of windows, some a door or shelf."""
    left = 0.0
    while left < PANORAMA_COLUMNS:
        width = rng.uniform(30, 170)
        top, bottom = rng.uniform(-20, 60), horizon + rng.uniform(-6, 10)
        canvas.rectangle(left, top, left + width, bottom)
        feature = rng.random()
        if feature < 0.4:
            columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 5))
            pane, across, down = canvas.material(), width / columns, (horizon - 30) / rows
            for i in range(columns):
                for j in range(rows):
                    x, y = left + across * (i + 0.15), 20 + down * (j + 0.15)
                    canvas.rectangle(x, y, x + 0.7 * across, y + 0.7 * down, pane)
        elif feature < 0.7:
            top = horizon * rng.uniform(0.2, 0.5)
            canvas.rectangle(left + 0.2 * width, top, left + 0.8 * width, horizon + 4)
        left += width


def _place_furniture(canvas, rng, horizon):
    """Poles (narrow, tall) and low wide boxes on the floor."""
    for _ in range(int(rng.integers(10, 22))):
        left, width = rng.uniform(0, PANORAMA_COLUMNS), rng.choice([4, 7, 12, 40, 70])
        top = rng.uniform(40, horizon) if width < 20 else horizon - 40
        canvas.rectangle(left, top, left + width, horizon + rng.uniform(5, 90))


def _draw_floor_lines(canvas, rng, horizon):
    for k in range(int(rng.integers(4, 9))):
        y = horizon + (PANORAMA_ROWS - horizon) * (k / 9) ** 1.4
        canvas.rectangle(0, y, PANORAMA_COLUMNS, y + 2)


def _grow_foliage(canvas, rng, horizon):
    """Leaves are dark green to the eye and bright in the near infrared."""
    size = PANORAMA_ROWS, PANORAMA_COLUMNS
    leaves = noise_field(rng, *size, 60) > 0.5
    leaves[horizon:] = False
    texture = noise_field(rng, *size, 3)[leaves][:, None]
    canvas.visible[leaves] = np.array([0.12, 0.22, 0.07]) * (0.4 + 1.3 * texture)
    canvas.near[leaves] = 0.35 + 0.5 * texture
    canvas.long[leaves] = 0.16 + 0.1 * texture


def draw_window(
    rng: np.random.Generator,
    seed: int,
    camera: Camera,
    height: int,
    width: int,
    stretch: float,
) -> np.ndarray:
    """The background of one image: an independent window of the camera's location.

    Args:
      rng: this image's background stream.
      seed: of the data set.
      camera: whose location and band to show.
      height, width: of the image, pixels.
      stretch: vertical over horizontal scale of the crop.

    Returns:
      float32 [height, width, 3 or 1].
    """
    place = panorama(seed, camera.location, camera.outdoor)
    rows = rng.uniform(150, 300)
    columns = rows * width / height * stretch
    left = rng.uniform(0, PANORAMA_COLUMNS - columns)
    top = place.horizon + rng.uniform(0.05, 0.25) * rows - 0.62 * rows
    top = np.clip(top, 0, PANORAMA_ROWS - rows)
    x0, y0 = max(0, int(left) - 1), max(0, int(top) - 1)
    part = place.bands[camera.band][y0 : int(top + rows) + 2, x0 : int(left + columns) + 2]
    return resample(resample(part, 1, width, left - x0, columns), 0, height, top - y0, rows)


@dataclasses.dataclass(frozen=True)
class Occluder:
    """Something in front of the person: where, bool [H, W], and what it looks like there."""

    mask: np.ndarray
    appearance: np.ndarray  # float32 [H, W, 3 or 1]


def draw_occluder(rng: np.random.Generator, band: Band, height: int, width: int) -> Occluder:
    """A wall that hides the legs, a post, or a passer-by at the edge of the box."""
    row, column = np.mgrid[0:height, 0:width]
    kind = rng.random()
    if kind < 0.4:
        mask = row >= int(rng.uniform(0.6, 0.88) * height)
    elif kind < 0.75:
        left = int(rng.uniform(0, 0.85) * width)
        mask = (column >= left) & (column < left + int(rng.uniform(0.08, 0.3) * width))
    else:
        side = 1 if rng.random() < 0.5 else -1
        middle = (0.5 + side * rng.uniform(0.3, 0.5)) * width
        x, y = (column - middle) / (0.22 * width), (row - 0.6 * height) / (0.5 * height)
        mask = x * x + y * y < 1
    if band is Band.VISIBLE:
        base = rng.uniform(0.05, 0.8, 3)
    else:
        base = rng.uniform(0.1, 0.7 if band is Band.NEAR_INFRARED else 0.35, 1)
    texture = 0.7 + 0.6 * noise_field(rng, height, width, 8.0)
    return Occluder(mask, (base * texture[..., None]).astype(np.float32))
