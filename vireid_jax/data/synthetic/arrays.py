"""Array helpers shared by the rooms: rotations, value noise, resampling, blur.

Large arrays never meet a matrix product: the threads of a BLAS library cost small images more than
they give, many times more on a busy machine.
"""

import numpy as np


def rotation_x(angle: float) -> np.ndarray:
    """Right-handed rotation about x by `angle` radians, [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def rotation_y(angle: float) -> np.ndarray:
    """Right-handed rotation about y by `angle` radians, [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rotation_z(angle: float) -> np.ndarray:
    """Right-handed rotation about z by `angle` radians, [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] scaled to length 1."""
    return vectors / (np.sqrt((vectors * vectors).sum(-1, keepdims=True)) + 1e-9)


def _smooth(t):
    return t * t * (3.0 - 2.0 * t)


def _lattice(i: np.ndarray, j: np.ndarray, salt: int) -> np.ndarray:
    """Pseudo-random value in [0, 1) of each lattice point; wraps on purpose."""
    with np.errstate(over="ignore"):
        h = i.astype(np.uint32) * np.uint32(0x9E3779B1)
        h += j.astype(np.uint32) * np.uint32(0x85EBCA77)
        h += np.uint32(salt & 0xFFFFFFFF) * np.uint32(0xC2B2AE3D)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        h = (h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
        h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def value_noise(u: np.ndarray, v: np.ndarray, salt: int) -> np.ndarray:
    """Smooth noise in [0, 1] with one lattice cell per unit, at scattered points u, v."""
    i, j = np.floor(u), np.floor(v)
    a, b = _smooth(u - i), _smooth(v - j)
    i, j = i.astype(np.int64), j.astype(np.int64)
    left = _lattice(i, j, salt) * (1 - b) + _lattice(i, j + 1, salt) * b
    right = _lattice(i + 1, j, salt) * (1 - b) + _lattice(i + 1, j + 1, salt) * b
    return left * (1 - a) + right * a


def noise_field(rng: np.random.Generator, rows: int, columns: int, cell: float) -> np.ndarray:
    """Smooth noise in [0, 1] on a pixel grid, float32 [rows, columns]; `cell` in pixels."""
    y, x = np.arange(rows) / cell, np.arange(columns) / cell
    lattice = rng.random((int(y[-1]) + 2, int(x[-1]) + 2), dtype=np.float32)
    across = _blend(lattice, 1, x.astype(int), _smooth(x % 1))
    return _blend(across, 0, y.astype(int), _smooth(y % 1))


def resample(image: np.ndarray, axis: int, n_out: int, start: float, length: float) -> np.ndarray:
    """Bilinear resampling of [start, start + length) along one axis to n_out samples."""
    n_in = image.shape[axis]
    position = np.clip(start + (np.arange(n_out) + 0.5) * (length / n_out) - 0.5, 0, n_in - 1)
    index = np.minimum(position.astype(int), n_in - 2)
    return _blend(image, axis, index, position - index)


def _blend(image, axis, index, share):
    """(1 - share) image[index] + share image[index + 1] along an axis."""
    shape = [1] * image.ndim
    shape[axis] = len(index)
    share = share.astype(np.float32).reshape(shape)
    low, high = np.take(image, index, axis), np.take(image, index + 1, axis)
    return low + share * (high - low)


_BLUR_REACH = 2.5  # standard deviations kept on each side


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [h, w, c] with repeated edges; `sigma` in pixels, invisible ones skipped."""
    if sigma < 0.25:
        return image
    reach = max(1, round(_BLUR_REACH * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    h, w, _ = image.shape
    padded = np.pad(image, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    image = sum(weight * padded[i : i + h] for i, weight in enumerate(kernel))
    padded = np.pad(image, ((0, 0), (reach, reach), (0, 0)), mode="edge")
    return sum(weight * padded[:, i : i + w] for i, weight in enumerate(kernel))
