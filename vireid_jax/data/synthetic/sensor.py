"""Light and sensor: from materials and normals to grey levels.

Lengths in pixels are given at 288 rows and scaled with the image, so that a small image is a
resized large one.
"""

import numpy as np

from vireid_jax.data.synthetic.arrays import blur, resample, unit
from vireid_jax.data.synthetic.camera import Band, Camera, Look, Pose

REFERENCE_ROWS = 288


def light_figure(
    rng: np.random.Generator,
    camera: Camera,
    look: Look,
    pose: Pose,
    material: np.ndarray,
    normal: np.ndarray,
) -> np.ndarray:
    """Radiance of surface points.

    Args:
      rng: this image's light stream.
      camera, look, pose: the camera, its constants, and where it stands.
      material: [k, c], reflectance or emission of each point, c = 3 if visible, else 1.
      normal: [k, 3], unit normals in the person frame.

    Returns:
      float32 [k, c].
    """
    towards_camera = pose.axes[2]
    if camera.band is Band.VISIBLE:
        elevation, azimuth = rng.uniform(0.5, 1.2), look.sun + rng.normal(0, 0.5)
        ambient = look.ambient * rng.uniform(0.8, 1.25)
        level = np.cos(elevation)
        sun = np.array([np.sin(azimuth) * level, np.sin(elevation), np.cos(azimuth) * level])
        facing = _cosine(normal, pose.turn @ sun)
        shading = ambient * (0.75 + 0.25 * normal[:, 1])
        shading = shading + 1.3 * (1 - ambient) * np.maximum(facing, 0)
        return material * shading[:, None]
    if camera.band is Band.NEAR_INFRARED:
        # The lamp is a ring about the lens, a little above it.
        aside = pose.turn @ np.array([rng.normal(0, 0.12), 0.15, 0.0])
        lamp = unit(towards_camera + aside)
        shading = 0.22 + 0.85 * np.maximum(_cosine(normal, lamp), 0)
        return material * shading[:, None]
    shading = 0.8 + 0.2 * np.maximum(_cosine(normal, towards_camera), 0)
    return material * shading[:, None] + np.float32(0.03 * rng.normal())


def _cosine(normals, direction):
    return np.einsum("ki,i->k", normals, direction.astype(np.float32))


def light_background(rng: np.random.Generator, camera: Camera, window: np.ndarray) -> np.ndarray:
    """Radiance of the background: the infrared lamp hardly reaches it."""
    if camera.band is Band.NEAR_INFRARED:
        return window * np.float32(rng.uniform(0.35, 0.8))
    return window


def expose(
    rng: np.random.Generator, camera: Camera, look: Look, radiance: np.ndarray
) -> np.ndarray:
    """What the camera makes of the light.

    Exposure, colour cast or vignetting, blur, tone curve, noise at the sensor's own resolution, and
    for long-wave cameras column noise and automatic gain.

    Args:
      rng: this image's sensor stream.
      camera: its band and resolution.
      look: its constants.
      radiance: [H, W, 3 or 1].

    Returns:
      uint8 [H, W, 3]; infrared repeats its one channel.
    """
    height, width, channels = radiance.shape
    visible, long_wave = camera.band is Band.VISIBLE, camera.band is Band.LONG_WAVE
    scale = height / REFERENCE_ROWS
    native = min(1.0, rng.uniform(*camera.native_rows) / REFERENCE_ROWS)
    exposure = np.exp(rng.normal(0, 0.16)) * look.gain
    if visible:
        cast = look.white_balance * np.exp(rng.normal(0, 0.05, 3))
        image = radiance * (cast * exposure).astype(np.float32) + look.tint
    else:
        fall_off = _vignette(height, width, look.vignetting * rng.uniform(0.6, 1.6))
        image = radiance * (fall_off * exposure)
        if camera.band is Band.NEAR_INFRARED:
            lamp = rng.uniform(0.75, 1.05)
            image = 0.08 + 0.8 * lamp * np.maximum(image, 0) ** 0.9
    softness = look.blur + 0.55 * (1 / native - 1) + (0.5 if long_wave else 0.0)
    image = blur(image.astype(np.float32), 1.2 * scale * softness)
    image = np.maximum(image, 0) ** np.float32(look.gamma * (0.625 if visible else 0.95))
    image = image + _noise(rng, look, camera.band, height, width, channels, native)
    if long_wave:
        image = _automatic_gain(rng, image)
    levels = (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)
    return np.broadcast_to(levels, (height, width, 3)).copy()


def _vignette(height, width, strength):
    y = (np.arange(height, dtype=np.float32) / height - 0.5) ** 2
    x = (np.arange(width, dtype=np.float32) / width - 0.5) ** 2
    return 1 - np.float32(strength) * (y[:, None, None] + x[None, :, None])


def _noise(rng, look, band, height, width, channels, native):
    rows, columns = max(2, int(height * native)), max(2, int(width * native))
    level = look.noise if band is Band.VISIBLE else 1.5 * look.noise
    noise = np.float32(level) * rng.standard_normal((rows, columns, channels), np.float32)
    if band is Band.LONG_WAVE:
        noise += np.float32(0.006) * rng.standard_normal((1, columns, 1), np.float32)
    return resample(resample(noise, 1, width, 0, columns), 0, height, 0, rows)


def _automatic_gain(rng, image):
    low, high = np.quantile(image[::4, ::4], [0.02, 0.995])
    return (image - low) / max(high - low, 0.15) * rng.uniform(0.8, 1.0) + 0.02
