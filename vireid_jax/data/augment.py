"""Augmentation: batched, on the device, an image and its heatmap together."""

import jax
import jax.numpy as jnp
import numpy as np

from vireid_jax.data.heatmaps import JOINTS, MIRRORED, STRIDE, with_background

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, of RGB in 0..1
STD = np.array([0.229, 0.224, 0.225], np.float32)
_ERASED_AREA = (0.02, 0.33)  # of the image
_ERASED_ASPECT = (0.3, 3.3)
_ATTEMPTS = 10  # at a rectangle that fits
_KNOTS = 6  # of a random tone curve
_RANGE = -2, 2  # of the curve, standard deviations


def normalise(images, grey: bool = False):
    """uint8 [..., 3] -> float32, zero mean and unit variance on ImageNet.

    Under `grey` R, G and B become their mean first. Where JAX computes in float64, so does this.
    """
    images = images.astype(float)
    if grey:
        images = jnp.broadcast_to(images.mean(-1, keepdims=True), images.shape)
    return (images / 255 - MEAN) / STD


def augment(keys, images, heatmaps, *, crop_pad, flip, erase, erase_heatmaps, remix, grey):
    """Augments and normalises a batch; row i depends on `keys[i]` and its own pixels alone.

    Args:
      keys: one PRNG key a row, [B].
      images: uint8 [B, H, W, 3].
      heatmaps: uint8 [B, H/4, W/4, J], or None.
      crop_pad: pixels of black border from which a random H x W window is cut; the heatmap is
        shifted by the same vector, interpolated.
      flip: probability of a mirrored image; heatmaps with one channel per joint also swap left
        and right.
      erase: probability of a rectangle (2 to 33 % of the image, aspect 0.3 to 3.3) set to the
        mean colour; heatmaps keep what is under it.
      erase_heatmaps: probability of another such rectangle, set to 0, in the heatmap.
      remix: probability that all channels become one: a random mixture of R, G and B (weights of
        either sign) through a random tone curve, at the image's own mean and contrast. Garments
        keep shape and pattern and change their brightness at random, as they do from one
        spectrum to another.
      grey: see `normalise`; the mixtures of `remix` are still of R, G and B.

    Returns:
      float32 images, normalised; float32 heatmaps in [0, 1] or None.
    """

    def one(key, image, heatmap):
        crop, mirror, rectangle, hole, colour = jax.random.split(key, 5)
        if crop_pad:
            image, heatmap = _crop(crop, image, heatmap, crop_pad)
        if flip:
            image, heatmap = _flip(mirror, image, heatmap, flip)
        if remix:
            image = _remix(colour, image, remix)
        image = normalise(image, grey)
        if erase:
            image = _erase(rectangle, image, erase)
        if erase_heatmaps and heatmap is not None:
            heatmap = _erase(hole, heatmap, erase_heatmaps)
        if heatmap is not None and heatmap.shape[-1] > len(JOINTS):
            heatmap = with_background(heatmap[..., : len(JOINTS)])
        return image, heatmap

    if heatmaps is not None:
        heatmaps = heatmaps.astype(float) / 255
    return jax.vmap(one)(keys, images, heatmaps)


def _crop(key, image, heatmap, pad):
    # Without the barrier the draw is a part of what follows, and a GPU repeats it for each pixel.
    y, x = jax.lax.optimization_barrier(jax.random.randint(key, (2,), 0, 2 * pad + 1))
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    image = jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)
    if heatmap is not None:
        shift = (pad - jnp.stack([y, x])) / STRIDE  # in cells
        heatmap = jax.image.scale_and_translate(
            heatmap, heatmap.shape, (0, 1), jnp.ones(2), shift, "linear", antialias=False
        )
    return image, heatmap


def _flip(key, image, heatmap, probability):
    mirror = jax.random.bernoulli(key, probability)
    image = jnp.where(mirror, image[:, ::-1], image)
    if heatmap is not None:
        mirrored = heatmap[:, ::-1]
        if heatmap.shape[-1] > 1:
            mirrored = mirrored.at[..., : len(JOINTS)].set(mirrored[..., np.array(MIRRORED)])
        heatmap = jnp.where(mirror, mirrored, heatmap)
    return image, heatmap


def _remix(key, image, probability):
    mixing, curve, whether = jax.random.split(key, 3)
    image = image.astype(jnp.float32)
    grey = image.mean(-1)
    mixed = _standardised(image @ jax.random.normal(mixing, (3,)))
    mixed = _piecewise(mixed, *_RANGE, jax.random.normal(curve, (_KNOTS,)))
    mixed = jnp.clip(_standardised(mixed) * grey.std() + grey.mean(), 0, 255)[..., None]
    return jnp.where(jax.random.bernoulli(whether, probability), mixed, image)


def _piecewise(x, low, high, values):
    """`jnp.interp` of `values` at equal distances from `low` to `high`, without a search."""
    place = (x - low) * ((len(values) - 1) / (high - low))
    rises = enumerate(jnp.diff(values))
    return values[0] + sum(rise * jnp.clip(place - i, 0, 1) for i, rise in rises)


def _standardised(x):
    return (x - x.mean()) / (x.std() + 1e-3)


def _erase(key, image, probability):
    height, width, _ = image.shape
    whether, size, shape, place = jax.random.split(key, 4)
    area = height * width * jax.random.uniform(size, (_ATTEMPTS,), None, *_ERASED_AREA)
    low, high = np.log(_ERASED_ASPECT)
    aspect = jnp.exp(jax.random.uniform(shape, (_ATTEMPTS,), None, low, high))
    h = jnp.round(jnp.sqrt(area * aspect)).astype(int)
    w = jnp.round(jnp.sqrt(area / aspect)).astype(int)
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits)
    h, w = h[first], w[first]
    top, left = jax.random.randint(place, (2,), 0, jnp.stack([height - h + 1, width - w + 1]))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
    inside &= fits.any() & jax.random.bernoulli(whether, probability)
    return jnp.where(inside[..., None], 0.0, image)
