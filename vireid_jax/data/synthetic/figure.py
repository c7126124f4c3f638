"""A dressed person as about forty elliptic round cones in the person frame.

A round cone is the hull of two spheres; here its cross-section is squashed along two axes. The
cone's own axes are y along it, z as near as possible to `forward`, and x = y cross z.
"""

import dataclasses
import enum

import numpy as np

from vireid_jax.data.synthetic.body import SIDES, Body, Skeleton
from vireid_jax.data.synthetic.wardrobe import Outfit, Slot


class Part(enum.IntEnum):
    """How a cone is painted."""

    PLAIN = 0  # its slot throughout
    HOOD = 1
    TRUNK = 2
    ARM = 3
    LEG = 4
    SKIRT = 5
    DRESS_SKIRT = 6
    COAT_TAIL = 7
    BAG = 8


@dataclasses.dataclass(frozen=True)
class Cone:
    """One elliptic round cone; lengths in metres.

    Attributes:
      start, end: [3], the ends of the axis.
      radii: at start and end.
      forward: [3], the direction of the cone's z axis, roughly.
      part, slot: how it is painted; `slot` matters where the part leaves it open.
      squash: factors on the radii along the cone's x and z.
      span: the garment coordinate v at start and end.
      capped: with spherical ends, or else an open tube.
    """

    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    forward: np.ndarray
    part: Part = Part.PLAIN
    slot: Slot = Slot.SKIN
    squash: tuple[float, float] = (1.0, 1.0)
    span: tuple[float, float] = (0.0, 1.0)
    capped: bool = True


@dataclasses.dataclass(frozen=True)
class Figure:
    """The cones as arrays, one row a cone.

    Attributes:
      start, end: [n, 3].
      radii, squash, span: [n, 2].
      part, slot: int [n].
      capped: bool [n].
      chart: int [n], the cone in whose coordinates each one is painted, mostly itself.
      axes: [n, 3, 3], rows are the cone's x, y, z.
      length: [n].
    """

    start: np.ndarray
    end: np.ndarray
    radii: np.ndarray
    squash: np.ndarray
    span: np.ndarray
    part: np.ndarray
    slot: np.ndarray
    capped: np.ndarray
    chart: np.ndarray
    axes: np.ndarray
    length: np.ndarray


THICKNESS = {"jacket": 1.12, "coat": 1.15, "hoodie": 1.12, "vest": 1.06, "shirt": 1.03}
"""Of the upper garment: a factor on the radii of what it covers; 1 where absent."""


def build_figure(body: Body, outfit: Outfit, skeleton: Skeleton) -> Figure:
    """Dresses a skeleton."""
    sizes = _Sizes(body, outfit)
    cones = [
        *_head_cones(body, outfit, skeleton),
        *_neck_cones(body, outfit, skeleton, sizes),
        *_arm_cones(body, outfit, skeleton, sizes),
        *_leg_cones(body, outfit, skeleton, sizes),
        *_skirt_cones(body, outfit, skeleton, sizes),
        *_bag_cones(body, outfit, skeleton, sizes),
    ]
    trunk, on_chest = _trunk_cones(body, skeleton, sizes)
    cones += trunk
    chart = [*range(len(cones)), *[len(cones) - 1] * len(on_chest)]
    return stack_cones(cones + on_chest, chart)


class _Sizes:
    """Measures that several parts share, metres."""

    def __init__(self, body: Body, outfit: Outfit):
        height, girth = body.height, body.girth
        self.cloth = THICKNESS.get(outfit.upper, 1.0)
        # Thin limbs are drawn less thin than the factor says.
        self.limb = 0.5 * (body.limb + 1) if body.limb < 1 else body.limb
        broad = 1.05 if body.female else 1.0
        self.hips = 1.175 * body.hip_width * height * (0.6 + 0.4 * girth) * broad
        self.waist = self.hips * (0.80 if body.female else 0.93) * (0.7 + 0.3 * girth)
        self.chest = 0.465 * body.shoulder_width * height
        self.depth = 0.062 * height * girth


def _head_cones(body, outfit, skeleton):
    height = body.height
    centre, up, ahead = skeleton.points["head_centre"], skeleton.head[:, 1], skeleton.head[:, 2]
    radius = 0.048 * height * body.head

    def at(upwards, forwards=0.0):
        return centre + (upwards * up + forwards * ahead) * height

    def cone(start, end, low, high, slot, squash=(1.0, 1.0), **kwargs):
        radii = (low * radius, high * radius)
        return Cone(start, end, radii, ahead, slot=slot, squash=squash, **kwargs)

    yield cone(at(-0.034), at(0.03), 0.86, 1.02, Slot.SKIN, (0.92, 1.08))
    if outfit.hat == "hood":
        ends = at(-0.03, -0.014), at(0.03, -0.012)
        yield cone(*ends, 1.25, 1.2, Slot.UPPER, (1.0, 1.05), part=Part.HOOD)
    elif outfit.hair != "buzz":
        ends = at(0.018, -0.012), at(0.035, -0.006)
        yield cone(*ends, 1.06, 1.08, Slot.HAIR, (0.95, 1.08))
    elif outfit.hat == "none":
        yield cone(at(0.026, -0.010), at(0.032), 0.98, 1.0, Slot.HAIR, (0.94, 1.05))
    if outfit.hat != "hood":
        yield from _loose_hair_cones(body, outfit, skeleton, at, radius)
    if outfit.hat in ("cap", "beanie", "brim"):
        crown = 0.062 if outfit.hat == "beanie" else 0.052
        yield cone(at(0.03), at(crown), 1.12, 1.05, Slot.HAT, (0.97, 1.08))
    if outfit.hat == "cap":
        ends, radii = (at(0.028, 0.03), at(0.02, 0.095)), (0.75 * radius, 0.6 * radius)
        yield Cone(*ends, radii, up, slot=Slot.HAT, squash=(1.0, 0.22))
    if outfit.hat == "brim":
        ends, radii = (at(0.028, -0.001), at(0.028, 0.001)), (1.9 * radius, 1.9 * radius)
        yield Cone(*ends, radii, up, slot=Slot.HAT, squash=(1.0, 0.08))  # a ball pressed flat


def _loose_hair_cones(body, outfit, skeleton, at, radius):
    height, ahead = body.height, skeleton.head[:, 2]
    if outfit.hair in ("bob", "long"):
        drop, tip = (0.075, 0.95) if outfit.hair == "bob" else (0.17, 0.7)
        end = skeleton.points["upper_neck"] - 0.035 * height * skeleton.trunk[:, 2]
        end = end + np.array([0.0, 0.05 - 0.9 * drop, 0.0]) * height
        radii = (1.02 * radius, tip * radius)
        yield Cone(at(0.02, -0.022), end, radii, ahead, slot=Slot.HAIR, squash=(1.05, 0.6))
    if outfit.hair == "tail":
        ends, radii = (at(0.03, -0.062), at(-0.13, -0.085)), (0.022 * height, 0.014 * height)
        yield Cone(*ends, radii, ahead, slot=Slot.HAIR)
    if outfit.hair == "bun":
        ends, radii = (at(0.045, -0.05), at(0.046, -0.052)), (0.026 * height, 0.026 * height)
        yield Cone(*ends, radii, ahead, slot=Slot.HAIR)


def _neck_cones(body, outfit, skeleton, sizes):
    height, trunk = body.height, skeleton.trunk
    thorax, neck, ahead = skeleton.points["thorax"], skeleton.points["upper_neck"], trunk[:, 2]
    radii = (0.032 * height * sizes.limb, 0.029 * height * sizes.limb)
    yield Cone(thorax, neck + np.array([0.0, 0.01, 0.0]) * height, radii, ahead)
    if outfit.upper == "hoodie" and outfit.hat != "hood":  # the hood lies on the back
        ends = [thorax + trunk @ np.array([x, 0.012, -0.035]) * height for x in (-0.045, 0.045)]
        yield Cone(*ends, (0.034 * height, 0.034 * height), ahead, slot=Slot.UPPER)
    if outfit.scarf:
        start = thorax + np.array([0.0, 0.012, 0.0]) * height + 0.008 * height * ahead
        end = neck - np.array([0.0, 0.01, 0.0]) * height + 0.008 * height * ahead
        radii = (0.052 * height, 0.047 * height)
        yield Cone(start, end, radii, ahead, slot=Slot.SCARF, squash=(1.05, 1.0))


CHEST_SPAN = (0.35, 0.9)


def _trunk_cones(body, skeleton, sizes):
    """The two cones of the trunk, the upper last, and those painted as its continuation."""
    height, points, trunk = body.height, skeleton.points, skeleton.trunk
    ahead, cloth = trunk[:, 2], sizes.cloth

    def cone(start, end, radii, depth, span=(0.0, 1.0)):
        thick = (radii[0] * cloth, radii[1] * cloth)
        squash = (1.0, depth)
        return Cone(start, end, thick, ahead, Part.TRUNK, Slot.UPPER, squash, span)

    seat = points["pelvis"] - trunk[:, 1] * (0.012 * height)
    girths = sizes.hips, sizes.waist, 0.97 * sizes.chest
    belly_depth = 1.08 * sizes.depth / sizes.hips
    chest_depth = 1.02 * sizes.depth / (0.5 * (sizes.hips + sizes.chest))
    trunk_cones = [
        cone(seat, points["waist"], girths[:2], belly_depth, (0.0, CHEST_SPAN[0])),
        cone(points["waist"], points["chest"], girths[1:], chest_depth, CHEST_SPAN),
    ]
    inward = trunk @ np.array([0.03, -0.012, 0.0]) * height
    mirrored = trunk @ np.array([-0.03, -0.012, 0.0]) * height
    ends = points["r_shoulder"] + inward, points["l_shoulder"] + mirrored
    radius = 0.042 * height
    on_chest = [cone(*ends, (radius * sizes.limb, radius * sizes.limb), 1.05)]
    if body.female:
        breast = points["chest"] + ahead * (0.55 * sizes.depth)
        ends = [breast + trunk @ np.array([x, -0.04, 0.0]) * height for x in (-0.04, 0.04)]
        on_chest.append(cone(*ends, (radius, radius), 1.0))
    return trunk_cones, on_chest


ELBOW_SPAN = 0.53  # share of the upper arm in the length of the arm


def _arm_cones(body, outfit, skeleton, sizes):
    height, points, ahead = body.height, skeleton.points, skeleton.trunk[:, 2]
    thick = height * sizes.limb * (sizes.cloth if outfit.sleeve > 0.55 else 1.0)
    cuff = 1.25 if outfit.sleeve >= 1 else 1.0
    for side, _ in SIDES:
        shoulder, elbow, wrist, hand = (
            points[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand")
        )
        radii = (0.034 * thick, 0.027 * thick)
        yield Cone(shoulder, elbow, radii, ahead, Part.ARM, span=(0.0, ELBOW_SPAN))
        radii = (0.026 * thick, 0.019 * thick * cuff)
        yield Cone(elbow, wrist, radii, ahead, Part.ARM, span=(ELBOW_SPAN, 1.0))
        yield Cone(wrist, hand, (0.019 * height, 0.017 * height), ahead, squash=(1.0, 0.6))


def _leg_cones(body, outfit, skeleton, sizes):
    height, points, ahead = body.height, skeleton.points, skeleton.trunk[:, 2]
    width = outfit.leg_width
    at_knee = width if outfit.lower_length > 0.35 else 1.0
    below, at_ankle = (width, 1.15 * width) if outfit.lower_length > 0.9 else (1.0, 1.0)
    thick = height * sizes.limb
    thigh = 0.052 * thick * (0.75 + 0.25 * body.girth) * min(width, 1.22)
    for side, _ in SIDES:
        hip, knee, ankle, heel, toe = (
            points[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "heel", "toe")
        )
        radii = (thigh, 0.037 * thick * at_knee)
        yield Cone(hip, knee, radii, ahead, Part.LEG, span=(0.0, 0.5))
        radii = (0.036 * thick * below, 0.022 * thick * at_ankle)
        yield Cone(knee, ankle, radii, ahead, Part.LEG, span=(0.5, 1.0))
        yield Cone(heel, toe, (0.024 * height, 0.018 * height), ahead, slot=Slot.SHOE)


def _skirt_cones(body, outfit, skeleton, sizes):
    height, points, ahead = body.height, skeleton.points, skeleton.trunk[:, 2]
    pelvis, leg = points["pelvis"], body.leg * height

    def tube(above, end, widths, depth, part, slot):
        start = pelvis + np.array([0.0, above * height, 0.0])
        radii = (widths[0] * sizes.hips, widths[1] * sizes.hips)
        return Cone(start, end, radii, ahead, part, slot, (1.0, depth), capped=False)

    if outfit.lower == "skirt" or outfit.upper == "dress":
        # The skirt follows the knees, a quarter of the way.
        knees = 0.5 * (points["r_knee"] + points["l_knee"] - points["r_hip"] - points["l_hip"])
        hang = np.array([0.0, -1.0, 0.25 * knees[2] / height])
        end = pelvis + hang * (outfit.skirt_length * leg)
        widths, depth = (0.98, outfit.skirt_flare), 0.72 if outfit.skirt_flare > 1.4 else 0.66
        if outfit.lower == "skirt":
            yield tube(0.02, end, widths, depth, Part.SKIRT, Slot.LOWER)
        else:
            yield tube(0.02, end, widths, depth, Part.DRESS_SKIRT, Slot.UPPER)
    if outfit.upper == "coat":
        end = pelvis - np.array([0.0, outfit.coat_length * leg, 0.0])
        hem = 1.3
        if outfit.lower == "skirt":  # the coat lies over the skirt all the way down
            flare = (outfit.skirt_flare - 0.98) / outfit.skirt_length
            hem = max(hem, 1.12 + flare * outfit.coat_length)
        yield tube(0.03, end, (1.12, hem), 0.72, Part.COAT_TAIL, Slot.UPPER)


def _bag_cones(body, outfit, skeleton, sizes):
    height, points, trunk = body.height, skeleton.points, skeleton.trunk
    bag, ahead = outfit.bag, trunk[:, 2]
    scale = bag.size * height

    def cone(start, end, radii, squash):
        thick = (radii[0] * scale, radii[1] * scale)
        return Cone(start, end, thick, ahead, Part.BAG, Slot.BAG, squash)

    if bag.kind == "backpack":
        behind = -ahead * (sizes.depth + 0.05 * scale)
        ends = points["waist"] + behind, points["chest"] + behind
        yield cone(*ends, (0.085, 0.075), (1.0, 0.62))
    elif bag.kind in ("shoulder", "cross"):
        beside = np.array([bag.side * (sizes.hips + 0.025 * height), 0.0, 0.01 * height])
        centre = points["pelvis"] + trunk @ beside
        up = trunk[:, 1] * scale
        yield cone(centre + 0.03 * up, centre - 0.05 * up, (0.05, 0.058), (0.5, 1.2))
    elif bag.kind == "hand":
        hand = points["l_hand" if bag.side > 0 else "r_hand"]
        start = hand - np.array([0.0, 0.05 * height, 0.0])
        end = hand - np.array([0.0, 0.06 * height + 0.09 * scale, 0.0])
        yield cone(start, end, (0.05, 0.065), (0.42, 1.2))


def stack_cones(cones: list[Cone], chart: list[int]) -> Figure:
    """The cones as arrays; `chart` names for each the cone in whose coordinates it is painted."""
    start, end, forward = (
        np.array([getattr(cone, name) for cone in cones]) for name in ("start", "end", "forward")
    )
    along = end - start
    length = np.maximum(np.linalg.norm(along, axis=1), 1e-6)
    y = along / length[:, None]
    x = np.cross(y, forward)
    parallel = np.linalg.norm(x, axis=1) < 1e-3
    x[parallel] = np.cross(y[parallel], [1.0, 0.0, 0.1])  # any perpendicular will do
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Figure(
        start=start,
        end=end,
        radii=np.array([cone.radii for cone in cones]),
        squash=np.array([cone.squash for cone in cones]),
        span=np.array([cone.span for cone in cones]),
        part=np.array([cone.part for cone in cones], np.int8),
        slot=np.array([cone.slot for cone in cones], np.int8),
        capped=np.array([cone.capped for cone in cones]),
        chart=np.array(chart),
        axes=np.stack([x, y, np.cross(x, y)], axis=1),
        length=length,
    )
