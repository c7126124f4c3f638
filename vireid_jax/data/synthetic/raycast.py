"""Exact intersection of pixel rays with the cones of a figure, and the surface that is seen.

All (cone, pixel) pairs inside the cones' bounding boxes are solved at once as flat arrays: an image
has a few dozen cones, so one pass over pairs beats a loop over cones several times.
"""

import dataclasses

import numpy as np

from vireid_jax.data.synthetic.camera import Crop, Pose
from vireid_jax.data.synthetic.figure import Figure, Part

NEAREST = 0.3  # metres; cones nearer to the camera are left out
BOX_MARGIN = 1.06  # on the radius of a projected sphere, against the perspective's stretch


@dataclasses.dataclass(frozen=True)
class Rays:
    """What the figure's cones mean to this camera, per cone.

    A ray of slopes (a, b) is camera + t (a, b, -1): t is the depth in metres.

    Attributes:
      origin: float32 [n, 3], the camera in the cone's squashed frame.
      to_local: float32 [n, 3, 3], camera directions to that frame.
      right, up: float32 [W] and [H], slopes of the pixel columns and rows.
    """

    origin: np.ndarray
    to_local: np.ndarray
    right: np.ndarray
    up: np.ndarray

    def directions(self, cone: np.ndarray, row: np.ndarray, column: np.ndarray):
        """Local ray directions x, y, z, each [k], of pixels against cones."""
        a, b = self.right[column], self.up[row]
        m = self.to_local
        return tuple(a * m[cone, i, 0] + b * m[cone, i, 1] - m[cone, i, 2] for i in range(3))


@dataclasses.dataclass(frozen=True)
class Surface:
    """The visible points of a figure, one per covered pixel (k of them).

    Attributes:
      row, column: int [k].
      cone: int [k].
      u, v: float32 [k], surface coordinates, see `paint`.
      normal: float32 [k, 3], outward unit normals in the person frame.
    """

    row: np.ndarray
    column: np.ndarray
    cone: np.ndarray
    u: np.ndarray
    v: np.ndarray
    normal: np.ndarray


def aim_rays(figure: Figure, pose: Pose, crop: Crop, height: int, width: int) -> Rays:
    """Prepares the rays of an image [height, width]."""
    scale = np.ones((len(figure.length), 3))
    scale[:, 0], scale[:, 2] = 1 / figure.squash[:, 0], 1 / figure.squash[:, 1]
    to_local = figure.axes * scale[:, :, None]
    origin = np.einsum("nij,nj->ni", to_local, pose.position - figure.start)
    right = (np.arange(width) + 0.5 - crop.centre[0]) / crop.focal[0]
    up = (crop.centre[1] - np.arange(height) - 0.5) / crop.focal[1]
    return Rays(
        origin=origin.astype(np.float32),
        to_local=(to_local @ pose.axes.T).astype(np.float32),
        right=right.astype(np.float32),
        up=up.astype(np.float32),
    )


def cast(figure: Figure, pose: Pose, crop: Crop, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """Depth float32 [H, W] (inf where nothing is hit) and cone int16 [H, W] (-1 there)."""
    height, width = len(rays.up), len(rays.right)
    cone, row, column = _pairs(figure, pose, crop, height, width)
    dx, dy, dz = rays.directions(cone, row, column)
    t = _hit_depth(figure, rays.origin, cone, dx, dy, dz)
    hit = np.flatnonzero(np.isfinite(t))
    pixel, t, cone = row[hit] * width + column[hit], t[hit], cone[hit]
    depth = np.full(height * width, np.inf, np.float32)
    np.minimum.at(depth, pixel, t)
    nearest = t == depth[pixel]
    owner = np.full(height * width, -1, np.int16)
    owner[pixel[nearest]] = cone[nearest]
    return depth.reshape(height, width), owner.reshape(height, width)


def _pairs(figure, pose, crop, height, width):
    """Cone, row and column of every pixel in a bounding box of a cone's two end spheres."""
    widest = np.maximum(figure.squash.max(axis=1), 1.0)[:, None]
    reach = BOX_MARGIN * figure.radii * widest  # [n, 2]
    ends = np.stack([figure.start, figure.end], axis=1)  # [n, 2, 3]
    right, up, depth = (a.reshape(-1, 2) for a in pose.see(ends.reshape(-1, 3)))
    left, bottom = crop.to_pixels(right - reach / depth, up - reach / depth)
    rightmost, top = crop.to_pixels(right + reach / depth, up + reach / depth)
    x0 = np.clip(np.floor(left.min(axis=1)), 0, width).astype(int)
    x1 = np.clip(np.ceil(rightmost.max(axis=1)) + 1, 0, width).astype(int)
    y0 = np.clip(np.floor(top.min(axis=1)), 0, height).astype(int)
    y1 = np.clip(np.ceil(bottom.max(axis=1)) + 1, 0, height).astype(int)
    columns = np.maximum(x1 - x0, 0)
    area = columns * np.maximum(y1 - y0, 0) * (depth.min(axis=1) > NEAREST)
    cone = np.repeat(np.arange(len(area)), area)
    index = np.arange(len(cone)) - (np.cumsum(area) - area)[cone]
    down, along = np.divmod(index, columns[cone])
    return cone, y0[cone] + down, x0[cone] + along


def _hit_depth(figure, origin, cone, dx, dy, dz):
    """Depth of the nearest hit of each pair, float32 [k]; inf for a miss.

    In the squashed frame the side is x^2 + z^2 = (ra + slope y)^2 for 0 <= y <= length, and the
    caps are spheres about y = 0 and y = length. Each is a quadratic in the depth t.
    """
    ox, oy, oz = (origin[cone, i] for i in range(3))
    length = figure.length.astype(np.float32)
    radii = figure.radii.astype(np.float32)
    slope = ((radii[:, 1] - radii[:, 0]) / length)[cone]
    length = length[cone]
    radius = radii[cone, 0] + slope * oy  # of the cone at the height of the camera
    across = dx * dx + dz * dz
    beside = ox * dx + oz * dz
    best = np.full(dx.shape, np.inf, np.float32)

    a = across - (slope * dy) ** 2
    b = beside - slope * dy * radius
    t = _nearer_root(np.where(np.abs(a) < 1e-9, 1e-9, a), b, ox * ox + oz * oz - radius * radius)
    y = oy + t * dy
    side = (t > 0) & (y >= 0) & (y <= length)
    best[side] = t[side]

    capped = np.flatnonzero(figure.capped[cone])
    cone, dy, ox, oy, oz = cone[capped], dy[capped], ox[capped], oy[capped], oz[capped]
    a = across[capped] + dy * dy
    from_axis = ox * ox + oz * oz
    for end, y_centre in ((0, np.float32(0)), (1, length[capped])):
        height = oy - y_centre
        c = from_axis + height * height - radii[cone, end] ** 2
        t = _nearer_root(a, beside[capped] + height * dy, c)
        nearer = (t > 0) & (t < best[capped])
        best[capped[nearer]] = t[nearer]
    return best


def _nearer_root(a, b, c):
    """The smaller root of a t^2 + 2 b t + c = 0 for a > 0; nan where there is none."""
    with np.errstate(invalid="ignore"):
        return (-b - np.sqrt(b * b - a * c)) / a


def surface_of(figure: Figure, rays: Rays, depth: np.ndarray, owner: np.ndarray) -> Surface:
    """Surface coordinates and normals of the covered pixels."""
    row, column = np.nonzero(owner >= 0)
    cone, t = owner[row, column].astype(np.intp), depth[row, column]
    x, y, z = _local_points(rays, cone, row, column, t)
    length = figure.length.astype(np.float32)[cone]
    slope = ((figure.radii[:, 1] - figure.radii[:, 0]) / figure.length).astype(np.float32)[cone]
    on_axis = np.clip(y, 0, length)
    on_side = on_axis == y
    squash = figure.squash.astype(np.float32)[cone]
    outward = x / squash[:, 0], y - on_axis - slope * np.hypot(x, z) * on_side, z / squash[:, 1]
    axes = figure.axes.astype(np.float32)
    normal = sum(outward[i][:, None] * axes[cone, i] for i in range(3))

    # The trunk's garment goes on over its lower end: a hem may hang below the pelvis.
    height = np.where((figure.part[cone] == Part.TRUNK) & (y < 0), y, on_axis)
    # Surface coordinates may be those of another cone (`Figure.chart`), beyond its ends too.
    chart = figure.chart[cone]
    moved = np.flatnonzero(chart != cone)
    elsewhere = _local_points(rays, chart[moved], row[moved], column[moved], t[moved])
    x[moved], height[moved], z[moved] = elsewhere
    span = figure.span.astype(np.float32)[chart]
    v = span[:, 0] + (span[:, 1] - span[:, 0]) * height / figure.length.astype(np.float32)[chart]
    u = np.arctan2(x, z) / np.float32(np.pi)
    normal /= np.sqrt((normal * normal).sum(axis=1, keepdims=True)) + np.float32(1e-9)
    return Surface(row, column, cone, u, np.minimum(v, 1), normal)


def _local_points(rays, cone, row, column, t):
    """Points at depth t in the squashed frames of the cones: x, y, z, each [k]."""
    directions = rays.directions(cone, row, column)
    return [rays.origin[cone, i] + t * directions[i] for i in range(3)]
