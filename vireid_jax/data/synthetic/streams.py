"""Independent random streams: every draw of the renderer is keyed by what it is for.

Two draws share a stream only if they share the whole key, so that nothing that varies from image
to image (pose, background, occluder, noise) can be shared by two images of one identity, and the
infrared look of a garment cannot follow from its colour.
"""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What a stream is drawn for. Numbers are part of the data: add new ones, never renumber."""

    STRUCTURE = 1  # per identity: body, garments, prints, bags
    VISIBLE = 2  # per identity: colours
    NEAR_INFRARED = 3  # per identity: reflectances
    LONG_WAVE = 4  # per identity: emissions
    FACING = 5  # per identity: front or back, where the identity decides
    LOCATION = 6  # per location: the panorama
    CAMERA_LOOK = 7  # per camera: white balance, gamma, noise, ...
    POSE = 8  # per image, as all that follow
    VIEW = 9
    CLOTH = 10
    BACKGROUND = 11
    LIGHT = 12
    OCCLUDER = 13
    SENSOR = 14
    KEYPOINTS = 15
    CAMERAS_OF_IDENTITY = 16  # per identity: which cameras never saw it
    TRIAL = 17  # per trial: which identities train


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """The random generator of one purpose; `key` names the identity, camera, image number."""
    return np.random.default_rng([seed, int(purpose), *key])


def choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One of the names, with probability proportional to its weight."""
    names = list(weights)
    bounds = np.cumsum([weights[name] for name in names])
    return names[int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right"))]
