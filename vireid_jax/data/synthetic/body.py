"""A person's build and posture: body ratios, and a walking skeleton with the 16 LIP joints.

Person frame, metres: x to the person's own left, y up, z forward; the lower foot on y = 0.
"""

import dataclasses

import numpy as np

from vireid_jax.data.synthetic.arrays import rotation_x, rotation_y, rotation_z

LIP_JOINTS = (
    "r_ankle",
    "r_knee",
    "r_hip",
    "l_hip",
    "l_knee",
    "l_ankle",
    "pelvis",
    "thorax",
    "upper_neck",
    "head_top",
    "r_wrist",
    "r_elbow",
    "r_shoulder",
    "l_shoulder",
    "l_elbow",
    "l_wrist",
)

SIDES = (("r", -1), ("l", 1))
"""The person's right and left, with the sign of x."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The build and gait of one identity. Lengths are fractions of `height` unless said.

    Attributes:
      height: metres.
      leg: height of the hip joint line.
      shoulder_width, hip_width: breadth between the joints, before the flesh.
      arm, head, girth, limb: factors on arm length, head size, trunk and limb thickness.
      stoop, stride, arm_swing, elbow: habitual angles, degrees.
    """

    female: bool
    height: float
    leg: float
    shoulder_width: float
    hip_width: float
    arm: float
    girth: float
    limb: float
    head: float
    stoop: float
    stride: float
    arm_swing: float
    elbow: float


def draw_body(rng: np.random.Generator) -> Body:
    """Draws a build."""
    female = bool(rng.random() < 0.5)
    return Body(
        female=female,
        height=rng.normal(1.64 if female else 1.76, 0.075),
        leg=rng.uniform(0.455, 0.515),
        shoulder_width=rng.normal(0.215 if female else 0.24, 0.014),
        hip_width=rng.normal(0.115 if female else 0.105, 0.008),
        arm=rng.uniform(0.92, 1.08),
        girth=float(np.clip(rng.normal(1.0, 0.16), 0.72, 1.5)),
        limb=float(np.clip(rng.normal(1.0, 0.13), 0.75, 1.35)),
        head=rng.uniform(0.92, 1.1),
        stoop=rng.uniform(-4, 14),
        stride=rng.uniform(14, 30),
        arm_swing=rng.uniform(8, 32),
        elbow=rng.uniform(8, 40),
    )


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """One posture: named points [3] in the person frame, and how trunk and head are turned."""

    points: dict[str, np.ndarray]
    trunk: np.ndarray  # rotation [3, 3]
    head: np.ndarray  # rotation [3, 3]

    def joints(self) -> np.ndarray:
        """The 16 joints in LIP order, [16, 3]."""
        return np.stack([self.points[name] for name in LIP_JOINTS])


WALKING_PROBABILITY = 0.85
RAISED_HAND_PROBABILITY = 0.07
POCKET_PROBABILITY = 0.08
SOLE = 0.018  # thickness below the foot's axis, of the height


def pose_skeleton(body: Body, rng: np.random.Generator, loaded_hand: int = 0) -> Skeleton:
    """Draws a posture: a moment of the gait, or standing, with each arm's gesture.

    Args:
      body: the build.
      rng: this image's pose stream.
      loaded_hand: -1 or +1 where the right or left hand carries a bag (that arm hangs), else 0.
    """
    height = body.height
    phase = rng.uniform(0, 2 * np.pi)
    walking = rng.random() < WALKING_PROBABILITY
    pace = rng.uniform(0.5, 1.15) if walking else rng.uniform(0, 0.15)
    points, trunk, head = _pose_trunk(body, rng, phase, pace)
    for side, sign in SIDES:
        swing_phase = phase if sign < 0 else phase + np.pi
        turned_hips = rotation_y(np.deg2rad(4 * np.sin(phase)))
        hip = np.array([sign * 0.725 * body.hip_width * height, -0.03 * height, 0.0])
        points[f"{side}_hip"] = points["pelvis"] + turned_hips @ hip
        _pose_leg(points, body, rng, side, sign, swing_phase, pace)
        shoulder = np.array([sign * 0.5 * body.shoulder_width * height, -0.012 * height, 0.0])
        points[f"{side}_shoulder"] = points["thorax"] + trunk @ shoulder
        _pose_arm(points, body, rng, side, sign, swing_phase, pace, trunk, loaded_hand == sign)
    feet = [points[name][1] for name in ("r_toe", "l_toe", "r_heel", "l_heel")]
    ground = np.array([0.0, min(feet) - SOLE * height, 0.0])
    return Skeleton({name: p - ground for name, p in points.items()}, trunk, head)


def _pose_trunk(body, rng, phase, pace):
    height = body.height
    lean = np.deg2rad(body.stoop + rng.normal(0, 3) + 3 * pace)
    twist = np.deg2rad(rng.normal(0, 6) + 6 * pace * np.sin(phase))
    trunk = rotation_y(twist) @ rotation_x(lean)
    length = (0.815 - body.leg - 0.03) * height
    pelvis = np.array([0.0, (body.leg + 0.03) * height, 0.0])
    along = trunk[:, 1]
    # The neck takes back most of the lean, so that the person looks ahead.
    neck = trunk @ rotation_x(-0.6 * lean)
    look = rotation_y(np.deg2rad(rng.normal(0, 22))) @ rotation_x(np.deg2rad(rng.normal(4, 8)))
    head = neck @ look
    head_height = 0.122 * height * body.head
    thorax = pelvis + along * length
    upper_neck = thorax + neck @ np.array([0.0, 0.055, 0.005]) * height
    points = {
        "pelvis": pelvis,
        "waist": pelvis + along * (0.32 * length),
        "chest": pelvis + along * (0.86 * length),
        "thorax": thorax,
        "upper_neck": upper_neck,
        "head_centre": upper_neck + head @ np.array([0.0, 0.55 * head_height, 0.012 * height]),
        "head_top": upper_neck + head @ np.array([0.0, 1.05 * head_height, 0.010 * height]),
    }
    return points, trunk, head


def _pose_leg(points, body, rng, side, sign, phase, pace):
    height = body.height
    thigh_angle = np.deg2rad(body.stride * pace * np.sin(phase) + 4)
    knee_angle = np.deg2rad(6 + 52 * pace * max(0.0, np.cos(phase)) ** 1.6)
    foot_angle = np.deg2rad(8 * pace * np.sin(phase))
    splay = rotation_z(sign * np.deg2rad(rng.uniform(0, 3.5)))
    thigh = splay @ rotation_x(-thigh_angle)
    shin = splay @ rotation_x(knee_angle - thigh_angle)
    foot = splay @ rotation_x(knee_angle - thigh_angle + foot_angle)
    leg_length = body.leg * height
    knee = points[f"{side}_hip"] - thigh[:, 1] * (0.49 * leg_length)
    ankle = knee - shin[:, 1] * (0.47 * leg_length)
    points[f"{side}_knee"], points[f"{side}_ankle"] = knee, ankle
    points[f"{side}_toe"] = ankle + foot @ np.array([0.0, -0.03, 0.105]) * height
    points[f"{side}_heel"] = ankle + foot @ np.array([0.0, -0.03, -0.02]) * height


def _pose_arm(points, body, rng, side, sign, phase, pace, trunk, loaded):
    """Angles in degrees: swing forward at the shoulder, away from the side, bend of the elbow."""
    swing = 3 - body.arm_swing * pace * np.sin(phase)
    bend = body.elbow * (0.6 + 0.4 * pace) - 8 * pace * np.sin(phase)
    away = rng.uniform(3, 13)
    twist = 0.0  # radians about the upper arm
    gesture = rng.random()
    if gesture < RAISED_HAND_PROBABILITY:  # at the phone
        swing, bend, twist = -rng.uniform(10, 40), rng.uniform(95, 140), rng.uniform(-0.5, 0.3)
    elif gesture < RAISED_HAND_PROBABILITY + POCKET_PROBABILITY:
        bend, swing, away = rng.uniform(30, 55), rng.uniform(5, 20), rng.uniform(10, 20)
    if loaded:
        bend, swing = rng.uniform(0, 12), 0.5 * swing
    upper = trunk @ rotation_z(sign * np.deg2rad(away)) @ rotation_x(-np.deg2rad(swing))
    upper = upper @ rotation_y(-sign * twist)
    fore = upper @ rotation_x(-np.deg2rad(bend))
    elbow = points[f"{side}_shoulder"] - upper[:, 1] * (0.172 * body.arm * body.height)
    wrist = elbow - fore[:, 1] * (0.15 * body.arm * body.height)
    points[f"{side}_elbow"], points[f"{side}_wrist"] = elbow, wrist
    points[f"{side}_hand"] = wrist - fore[:, 1] * (0.045 * body.height)
