"""Weights, images and checksums by a seeded rule, so that reference numbers need no stored inputs.

Everything is in PyTorch's layout. A draw is named, and its name seeds it.
"""

import dataclasses
import functools
import math
import zlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule of one set of fixtures; `tag` makes its draws differ from those of other sets."""

    tag: str

    def rng(self, name: str) -> np.random.Generator:
        """The generator of a draw."""
        return np.random.default_rng(zlib.crc32((self.tag + name).encode()))

    def normal(self, name: str, shape) -> np.ndarray:
        """float64 standard normal."""
        return self.rng(name).standard_normal(shape)

    def uniform(self, name: str, shape) -> np.ndarray:
        """float64 in [0, 1)."""
        return self.rng(name).random(shape)

    def weight(self, name: str, shape) -> np.ndarray:
        """The tensor `name` of a state dict, float32 (counters int64).

        The last part of the name says what it is; for a prefixed network the whole name counts.
        """
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            return np.zeros(shape, np.int64)
        n = self.normal(name, shape)
        if leaf == "running_var":
            value = np.exp(0.1 * n)
        elif leaf in ("running_mean", "bias"):
            value = 0.1 * n
        elif len(shape) == 1:
            value = 1 + 0.1 * n
        else:
            transposed = "deconv" in name  # its first axis is the input's
            fan_in = math.prod(shape[2:]) * shape[0] if transposed else math.prod(shape[1:])
            value = n * 1.1 / math.sqrt(fan_in)
        return value.astype(np.float32)

    def image(self, name: str, batch: int, height: int, width: int, cell: int, fine: float):
        """Images of coarse and fine noise, float32 [batch, 3, height, width]."""
        rng = self.rng(name)
        coarse = rng.standard_normal((batch, 3, -(-height // cell), -(-width // cell)))
        coarse = coarse.repeat(cell, 2).repeat(cell, 3)[:, :, :height, :width]
        return (coarse + fine * rng.standard_normal(coarse.shape)).astype(np.float32)

    def targets(self, name: str, batch: int, channels: int, height: int, width: int):
        """Heatmap targets of an image size: float32 at full size, and their 4x4 block means."""
        h, w = height // 4, width // 4
        coarse = self.uniform(f"heatmap72:{name}", (batch, channels, h, w))
        fine = self.uniform(f"heatmapfull:{name}", (batch, channels, height, width))
        full = (0.8 * coarse.repeat(4, 2).repeat(4, 3) + 0.2 * fine).astype(np.float32)
        blocks = full.reshape(batch, channels, h, 4, w, 4).astype(np.float64)
        return full, blocks.mean((3, 5)).astype(np.float32)

    def probe(self, name: str, x) -> float:
        """A signed checksum of all elements of `x`, in float64."""
        x = np.asarray(x, np.float64)
        return float(np.vdot(x, _signs(self, f"probe:{name}", x.shape)))


@functools.lru_cache(maxsize=1024)
def _signs(rule, name, shape):
    return rule.normal(name, shape)
