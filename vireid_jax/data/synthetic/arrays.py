"""Array helpers shared by the rooms: rotations, value noise, resampling and blur as matrices."""

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

    def weights(n):
        position = np.arange(n) / cell
        index = position.astype(int)
        t = _smooth(position - index)
        matrix = np.zeros((n, index[-1] + 2), np.float32)
        matrix[np.arange(n), index] = 1 - t
        matrix[np.arange(n), index + 1] = t
        return matrix

    across, along = weights(columns), weights(rows)
    lattice = rng.random((along.shape[1], across.shape[1]), dtype=np.float32)
    return along @ lattice @ across.T


def interpolation_matrix(n_out: int, n_in: int, start: float, length: float) -> np.ndarray:
    """Bilinear resampling of [start, start + length) to n_out samples, float32 [n_out, n_in]."""
    position = np.clip(start + (np.arange(n_out) + 0.5) * (length / n_out) - 0.5, 0, n_in - 1)
    index = np.minimum(position.astype(int), n_in - 2)
    t = position - index
    matrix = np.zeros((n_out, n_in), np.float32)
    rows = np.arange(n_out)
    matrix[rows, index] = 1 - t
    matrix[rows, index + 1] = t
    return matrix


def separable(image: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Applies [h', h] to the rows and [w', w] to the columns of an image [h, w, c]."""
    h, w, c = image.shape
    rows = (along @ image.reshape(h, w * c)).reshape(-1, w, c)
    # One product with the columns in front: numpy's batched small products are much slower.
    columns = across @ rows.transpose(1, 0, 2).reshape(w, -1)
    return columns.reshape(len(across), len(along), c).transpose(1, 0, 2)


_BLUR_REACH = 2.5  # standard deviations kept on each side


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [h, w, c] with repeated edges; `sigma` in pixels, invisible ones skipped."""
    if sigma < 0.25:
        return image
    reach = max(1, round(_BLUR_REACH * sigma))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()

    def matrix(n):
        result = np.zeros((n, n), np.float32)
        rows = np.arange(n)
        for offset, weight in zip(offsets, kernel, strict=True):
            result[rows, np.clip(rows + offset, 0, n - 1)] += weight
        return result

    return separable(image, matrix(image.shape[0]), matrix(image.shape[1]))
