"""Images one at a time through PIL, as data sets of published code transform them."""

import numpy as np
from PIL import Image, ImageOps

from augment import MEAN, STD

_MEAN, _STD = (np.float32(x)[:, None, None] for x in (MEAN, STD))


def transform(pixels, rng, pad, flip, erase):
    """Crop, flip, to float, erase: uint8 [H, W, 3] -> float32 [3, H, W]."""
    image = ImageOps.expand(Image.fromarray(pixels), pad)
    left, top = rng.integers(0, 2 * pad + 1, 2)
    image = image.crop((left, top, left + pixels.shape[1], top + pixels.shape[0]))
    if rng.random() < flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x = np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255
    x = (x - _MEAN) / _STD
    if rng.random() < erase:
        top, left = rng.integers(0, x.shape[1] // 2), rng.integers(0, x.shape[2] // 2)
        x[:, top : top + x.shape[1] // 3, left : left + x.shape[2] // 3] = 0
    return x
