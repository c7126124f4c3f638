"""Augmentation for the pose teacher: batched, on the device, an image and its keypoints together.

The transforms and their ranges are those of "Global Context for Convolutional Pose Machines"
(Osokin 2019) in its published code; rotation, scale and flip are one warp here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vireid_jax.data.heatmaps import MIRRORED
from vireid_jax.data.poses import GREY
from vireid_jax.types import PoseBatch

_SCALES = (0.8, 1.5)


def augment(keys, batch: PoseBatch, *, mask, permute, rotate, scale, flip):
    """Augments a batch; row i depends on `keys[i]` and its own pixels alone.

    Args:
      keys: one PRNG key a row, [B].
      batch: images uint8 [B, H, W, 3], and what belongs to them.
      mask: probability of a grey quadrilateral around a point of the middle third; its corners are
        up to 0.3 of the person's image away from that in either direction.
      permute: probability of exchanged channels; one may appear more than once, as in the
        published code.
      rotate: largest angle, degrees, either way.
      scale: probability of another size, 0.8 to 1.5 times.
      flip: probability of a mirrored image, with left and right joints swapped.

    Returns:
      float32 images [B, H, W, 3], 0 to 255, and keypoints [B, 16, 3]; joints that leave the frame
      keep their visibility, since maps reach in from there.
    """

    def one(key, image, keypoints, box):
        masking, colour, turn, grow, whether, mirror = jax.random.split(key, 6)
        image, box = image.astype(jnp.float32), box.astype(jnp.float32)
        if mask:
            image = _mask(masking, image, box, mask)
        if permute:
            image = _permute(colour, image, permute)
        angle = jnp.deg2rad(jax.random.uniform(turn, (), jnp.float32, -rotate, rotate))
        size = jax.random.uniform(grow, (), jnp.float32, *_SCALES)
        factor = jnp.where(jax.random.bernoulli(whether, scale), size, 1.0)
        return _warp(image, keypoints, box, angle, factor, jax.random.bernoulli(mirror, flip))

    return jax.vmap(one)(keys, batch.images, batch.keypoints, batch.box)


def _mask(key, image, box, probability):
    top, left, height, width = box
    size = jnp.stack([width, height])
    at, reach, whether = jax.random.split(key, 3)
    centre = jnp.stack([left, top]) + size * jax.random.uniform(at, (2,), None, 1 / 3, 2 / 3)
    away = size * jax.random.uniform(reach, (4, 2), None, 0, 0.3)
    sides = jnp.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])  # clockwise, y points down
    corners = centre + sides * away
    rows, columns = jnp.mgrid[: image.shape[0], : image.shape[1]]
    inside = jax.random.bernoulli(whether, probability)
    for a, b in zip(corners, jnp.roll(corners, -1, 0), strict=True):
        x, y = b - a
        inside &= x * (rows - a[1]) - y * (columns - a[0]) >= 0
    return jnp.where(inside[..., None], GREY, image)


def _permute(key, image, probability):
    order, whether = jax.random.split(key)
    first, second, third = jax.random.permutation(order, 3)
    # The published code writes the channels in turn, over those that it has yet to read.
    second = jnp.where(second == 0, first, second)
    third = jnp.stack([first, second, 2])[third]
    moved = image[..., jnp.stack([first, second, third])]
    return jnp.where(jax.random.bernoulli(whether, probability), moved, image)


def _warp(image, keypoints, box, angle, factor, mirror):
    """Turns by `angle`, fits what the turned box spans into the frame, enlarges by `factor`."""
    height, width, _ = image.shape
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    spanned = jnp.abs(jnp.array([[cos, sin], [sin, cos]])) @ jnp.stack([box[3], box[2]])
    enlarged = factor * jnp.min(np.array([width, height]) / spanned)
    forth = enlarged * jnp.array([[cos, sin], [-sin, cos]])
    forth = forth * jnp.stack([jnp.where(mirror, -1.0, 1.0), 1.0])[:, None]
    from_centre = jnp.stack([box[1] + (box[3] - 1) / 2, box[0] + (box[2] - 1) / 2])
    to_centre = np.array([width - 1, height - 1]) / 2
    xy = (keypoints[:, :2] - from_centre) @ forth.T + to_centre
    moved = jnp.concatenate([xy, keypoints[:, 2:]], -1)
    swapped = jnp.where(mirror, moved[np.array(MIRRORED)], moved)
    rows, columns = jnp.mgrid[:height, :width]
    grid = jnp.stack([columns, rows], -1) - to_centre
    sources = grid @ forth / enlarged**2 + from_centre  # `forth` is orthogonal but for its length
    at = [sources[..., 1], sources[..., 0]]
    sample = jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(channel, at, 1, cval=float(GREY)),
        in_axes=2,
        out_axes=2,
    )
    return sample(image), swapped
