"""One image of one identity by one camera, with its keypoints and its garment map."""

import dataclasses
import functools

import numpy as np

from vireid_jax.data.synthetic.arrays import blur, unit, value_noise
from vireid_jax.data.synthetic.body import Body, draw_body, pose_skeleton
from vireid_jax.data.synthetic.camera import (
    Band,
    Camera,
    Crop,
    Pose,
    draw_crop,
    draw_look,
    draw_pose,
    draw_yaw,
)
from vireid_jax.data.synthetic.figure import Figure, Part, build_figure
from vireid_jax.data.synthetic.paint import paint
from vireid_jax.data.synthetic.raycast import Surface, aim_rays, cast, surface_of
from vireid_jax.data.synthetic.scene import draw_occluder, draw_window
from vireid_jax.data.synthetic.sensor import REFERENCE_ROWS, expose, light_background, light_figure
from vireid_jax.data.synthetic.streams import Purpose, stream
from vireid_jax.data.synthetic.wardrobe import (
    Outfit,
    draw_long_wave,
    draw_near_infrared,
    draw_outfit,
    draw_visible,
)

OUTSIDE, HIDDEN, SEEN = 0, 1, 2
"""Values of a keypoint's visibility."""
HIDING_DEPTH = 0.11
"""A joint is hidden by a surface this far in front of it, as a share of the body height: less is
the person's own flesh and cloth about the joint."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything about a person that does not change between images.

    Attributes:
      body, outfit: the structure, common to all bands.
      materials: by band, [14, c], the look of each slot, c = 3 if visible, else 1.
    """

    body: Body
    outfit: Outfit
    materials: dict[Band, np.ndarray]


@functools.lru_cache(maxsize=64)
def draw_identity(seed: int, pid: int) -> Identity:
    """The identity of a number: three independent streams for structure, colour and infrared."""
    structure = stream(seed, Purpose.STRUCTURE, pid)
    body = draw_body(structure)
    near = draw_near_infrared(stream(seed, Purpose.NEAR_INFRARED, pid))
    long = draw_long_wave(stream(seed, Purpose.LONG_WAVE, pid))
    materials = {
        Band.VISIBLE: draw_visible(stream(seed, Purpose.VISIBLE, pid)),
        Band.NEAR_INFRARED: near[:, None],
        Band.LONG_WAVE: long[:, None],
    }
    return Identity(
        body=body,
        outfit=draw_outfit(structure, body.female),
        materials={band: values.astype(np.float32) for band, values in materials.items()},
    )


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One image and its truth.

    Attributes:
      image: uint8 [H, W, 3]; infrared images repeat their one channel.
      keypoints: float32 [16, 3] in LIP order: x, y in pixels with pixel centres at integers, and
        visibility OUTSIDE, HIDDEN or SEEN.
      garments: int8 [H, W], the `wardrobe.Slot` that is seen; -1 for background and occluders.
    """

    image: np.ndarray
    keypoints: np.ndarray
    garments: np.ndarray


def render(
    seed: int,
    pid: int,
    camera: Camera,
    number: int,
    height: int,
    width: int,
    *,
    occlusion: float = 0.0,
    keypoint_noise: float = 0.0,
    keypoint_dropout: float = 0.0,
) -> Rendered:
    """Renders image `number` of identity `pid` by a camera; a pure function of its arguments.

    Args:
      seed: of the whole data set.
      pid: the identity.
      camera: the camera; its number keys the streams.
      number: of the image within identity and camera.
      height, width: of the image, pixels.
      occlusion: probability of something in front of the person.
      keypoint_noise: standard deviation added to the keypoints, as a share of the image height.
      keypoint_dropout: probability that a joint is given as OUTSIDE although it is not.
    """
    key = (pid, camera.camid, number)
    draw = functools.partial(_stream_of_image, seed, key)
    identity, look = draw_identity(seed, pid), draw_look(seed, camera.camid)
    body, outfit = identity.body, identity.outfit

    posture = draw(Purpose.POSE)
    loaded_hand = outfit.bag.side if outfit.bag.kind == "hand" else 0
    skeleton = pose_skeleton(body, posture, loaded_hand)
    figure = build_figure(body, outfit, skeleton)
    yaw = draw_yaw(camera, posture, seed, pid)

    view = draw(Purpose.VIEW)
    pose = draw_pose(camera, view, yaw, body.height)
    crop = draw_crop(view, pose, figure, height, width)
    rays = aim_rays(figure, pose, crop, height, width)
    depth, owner = cast(figure, pose, crop, rays)
    surface = surface_of(figure, rays, depth, owner)
    slots = _paint_surface(outfit, figure, surface)
    normal = _fold_cloth(draw(Purpose.CLOTH), figure, surface)

    backdrop, light = draw(Purpose.BACKGROUND), draw(Purpose.LIGHT)
    window = draw_window(backdrop, seed, camera, height, width, crop.focal[1] / crop.focal[0])
    window = blur(window, backdrop.uniform(0.3, 1.6) * height / REFERENCE_ROWS)
    radiance = light_background(light, camera, window)
    material = identity.materials[camera.band][slots]
    covered = surface.row, surface.column
    radiance[covered] = light_figure(light, camera, look, pose, material, normal)
    garments = np.full((height, width), -1, np.int8)
    garments[covered] = slots

    obstacle = draw(Purpose.OCCLUDER)
    blocked = np.zeros((height, width), bool)
    if obstacle.random() < occlusion:
        occluder = draw_occluder(obstacle, camera.band, height, width)
        blocked = occluder.mask
        radiance[blocked] = occluder.appearance[blocked]
        garments[blocked] = -1

    keypoints = _locate_joints(skeleton.joints(), pose, crop, depth, blocked, body.height)
    if keypoint_noise or keypoint_dropout:
        annotator = draw(Purpose.KEYPOINTS)
        keypoints[:, :2] += annotator.normal(0, 1, (len(keypoints), 2)) * keypoint_noise * height
        keypoints[annotator.random(len(keypoints)) < keypoint_dropout, 2] = OUTSIDE
    image = expose(draw(Purpose.SENSOR), camera, look, radiance)
    return Rendered(image, keypoints, garments)


def _stream_of_image(seed, key, purpose):
    return stream(seed, purpose, *key)


def _paint_surface(outfit: Outfit, figure: Figure, surface: Surface) -> np.ndarray:
    slots = figure.slot[surface.cone]
    parts = figure.part[surface.cone]
    for part in np.unique(parts):
        here = np.flatnonzero(parts == part)
        slots[here] = paint(outfit, Part(part), slots[here], surface.u[here], surface.v[here])
    return slots


FOLD_SALT = 11


def _fold_cloth(rng: np.random.Generator, figure: Figure, surface: Surface) -> np.ndarray:
    """Normals [k, 3] with the folds of this image: smooth noise along and about each cone."""
    strength, shift = rng.uniform(0.15, 0.5), rng.uniform(0, 99)
    around, along = rng.uniform(2, 5), rng.uniform(3, 9)
    u = surface.u * around + shift + 7 * surface.cone
    fold = strength * (value_noise(u, surface.v * along + 31, FOLD_SALT) - 0.5)
    axes = (figure.axes[:, 1] + 0.6 * figure.axes[:, 0]).astype(np.float32)
    return unit(surface.normal + fold[:, None].astype(np.float32) * axes[surface.cone])


def _locate_joints(joints, pose: Pose, crop: Crop, depth, blocked, body_height) -> np.ndarray:
    right, up, distance = pose.see(joints)
    x, y = crop.to_pixels(right, up)  # pixel edges at integers
    height, width = depth.shape
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    covered = depth[row, column] < distance - HIDING_DEPTH * body_height
    hidden = covered | blocked[row, column]
    visibility = np.where(inside, np.where(hidden, HIDDEN, SEEN), OUTSIDE)
    return np.stack([x - 0.5, y - 0.5, visibility], axis=1).astype(np.float32)
