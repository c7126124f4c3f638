"""Image files of any kind as RGB JPEG or PNG bytes, checked to be whole."""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from vireid_jax.types import UserError

_STORED_AS_THEY_ARE = ("JPEG", "PNG")
_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # PIL's names for more than 8 bits
_TAILS = (1, 99)  # percentiles of a deep image that become black and white
ROW = ".npy#"  # row N of an array of images is FILE.npy#N


def encoded(root: Path, path: str) -> io.BytesIO:
    """An image as an RGB JPEG or PNG.

    RGB files in these formats keep their bytes. Of all others: grey values are repeated, palettes
    applied, transparency is dropped, photographs turned upright; images of 16 bits or more (thermal
    sensors) are stretched from their 1st to their 99th percentile, each by itself, to 0..255.

    Args:
      root: the data set's folder.
      path: of the file below it; `FILE.npy#N` is row N of an array uint8 [n, H, W, 3].

    Raises:
      UserError: not an image, or not a whole one; one of 16 bits in several channels, of which
        Pillow would keep the upper 8.
    """
    file = root / path
    try:
        if ROW in path:
            return _png(Image.fromarray(row(root, path)))
        content = file.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            stored = str(image.tile)  # as which pixels; BGR;16 has 16 bits for all channels
            deep = ";16" in stored and "BGR;16" not in stored
            image.load()  # all of it: a truncated file raises
            if deep and image.mode not in _DEEP:
                raise UserError(
                    f"{file} has 16 bits in each of several channels: save it with 8 bits, or what "
                    "a thermal sensor measured as one channel of 16"
                )
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return _png(ImageOps.exif_transpose(image).convert("RGB"))
            if image.mode == "RGB" and image.format in _STORED_AS_THEY_ARE:
                return io.BytesIO(content)
            return _png(_eight_bits(image) if image.mode in _DEEP else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "it is empty" if file.is_file() and not file.stat().st_size else error
        raise UserError(f"{file} is no readable image ({reason}): replace it") from error


def row(root: Path, path: str) -> np.ndarray:
    """The image that `FILE.npy#N` names, uint8 [H, W, 3]."""
    name, number = path.rsplit("#", 1)
    return array(root / name)[int(number)]


def array(file: str | Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped.

    Raises:
      UserError: no such file, or another content.
    """
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged file makes NumPy raise
        raise UserError(f"{file} is no NumPy array ({error}): make it anew") from error
    if not isinstance(found, np.ndarray) or not found.ndim:
        raise UserError(f"{file} holds no NumPy array of images or labels: make it anew")
    return found


def _eight_bits(image):
    values = np.asarray(image, np.float64)
    low, high = np.nanpercentile(values, _TAILS)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    scaled = np.nan_to_num(scaled)  # dead pixels of float images
    return Image.fromarray(np.round(255 * scaled).astype(np.uint8)).convert("RGB")


def _png(image):
    content = io.BytesIO()
    image.save(content, "png", compress_level=1)
    content.seek(0)
    return content
