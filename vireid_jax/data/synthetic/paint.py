"""Which material covers each point of a figure: prints, hems, sleeves, logos, straps.

Surface coordinates of a part, float32 [k]: u, the angle about its axis in half turns (-1..1, 0 in
front, and on the trunk +0.5 on the person's left), and v, 0..1 along the garment (up the trunk,
negative below the pelvis; down the arms, legs and skirts). Results are int8 [k], `Slot` values.
"""

import numpy as np

from vireid_jax.data.synthetic.arrays import value_noise
from vireid_jax.data.synthetic.figure import Part
from vireid_jax.data.synthetic.wardrobe import ALL_OVER, Outfit, Print, Slot


def covers(print_: Print, design: str, u: np.ndarray, v: np.ndarray, density=1.0) -> np.ndarray:
    """Where a design shows its second colour, bool [k].

    Args:
      print_: the parameters of the design.
      design: its name; one that is no print (`solid`, `cuff`, ...) covers nothing.
      u, v: surface coordinates.
      density: factor on the frequency.
    """
    f, phase, duty = print_.frequency * density, print_.phase, print_.duty
    if design == "hstripe":
        return (v * f + phase) % 1 < duty
    if design == "vstripe":
        return (u * f * 1.2 + phase) % 1 < duty
    if design == "check":
        return ((v * f * 0.7 + phase) % 1 < 0.5) ^ ((u * f * 0.8) % 1 < 0.5)
    if design == "dots":
        row = v * f * 0.9
        column = u * f * 1.1 + 0.5 * (np.floor(row) % 2)
        return (row % 1 - 0.5) ** 2 + (column % 1 - 0.5) ** 2 < 0.09
    if design == "band":
        return (v > print_.band[0] - 0.08) & (v < print_.band[1] + 0.08)
    if design == "split":
        return v < 0.35 + 0.4 * print_.band[0]
    if design == "yoke":
        return v > 0.62 + 0.25 * print_.band[0]
    if design == "diagonal":
        return ((v + 0.9 * u + phase) * f * 0.45) % 1 < duty
    if design == "camouflage":
        return value_noise(u * 7 + 50, v * 8 * density + 50, print_.salt) > 0.52
    return np.zeros(u.shape, bool)


def paint(outfit: Outfit, part: Part, slot: np.ndarray, u: np.ndarray, v: np.ndarray):
    """Materials of points of one part; `slot` holds what their cones say."""
    painter = _PAINTERS.get(part)
    return slot if painter is None else painter(outfit, u, v)


def _filled(u, slot):
    return np.full(u.shape, slot, np.int8)


def _paint_hood(outfit, u, v):
    del outfit, v
    slots = _filled(u, Slot.UPPER)
    slots[np.abs(u) < 0.33] = Slot.SKIN
    return slots


LOWER_ON_HIPS = ("hstripe", "check", "camouflage")
LOWER_DENSITY = 1.3


def _paint_trunk(outfit, u, v):
    slots = _filled(u, Slot.UPPER)
    slots[covers(outfit.upper_print, outfit.upper_print.design, u, v)] = Slot.UPPER_PRINT
    if outfit.opening:
        slots[(np.abs(u) < outfit.opening) & (v < 0.97)] = Slot.INNER
    hem = 0.18 - 3.2 * outfit.hem
    if outfit.upper not in ("dress", "coat"):
        below = v < hem
        slots[below] = Slot.LOWER
        if outfit.lower_print in LOWER_ON_HIPS:
            # v runs up the trunk and down the leg, and a trunk is about half a leg long.
            second = covers(outfit.upper_print, outfit.lower_print, u, -0.5 * v, LOWER_DENSITY)
            slots[below & second] = Slot.LOWER_PRINT
    if outfit.belt:
        slots[np.abs(v - max(hem, 0.05)) < 0.025] = Slot.BELT
    if outfit.logo.front and not outfit.opening:
        _stamp_logo(outfit.logo, slots, u, v)
    if outfit.logo.back:
        _stamp_logo(outfit.logo, slots, (u + 2) % 2 - 1, v)
    if outfit.bag.kind == "backpack":
        slots[(np.abs(np.abs(u) - 0.27) < 0.055) & (v > 0.3)] = Slot.STRAP
    if outfit.bag.kind == "cross":
        # From the hip on the bag's side to the other shoulder, in front as on the back.
        leftward = np.where(np.abs(u) < 0.5, u, np.sign(u) - u)
        offset = 0.9 * outfit.bag.side * leftward - 1.1 * (0.62 - v)
        slots[np.abs(offset) < 0.07] = Slot.STRAP
    return slots


def _stamp_logo(logo, slots, u, v):
    """Swaps ground and second colour where the bitmap says so; `u` = 0 at the logo's middle."""
    outward = np.abs(u) / (3.2 * logo.size)
    upward = (v - logo.height) / (3.0 * logo.size) + 0.5
    inside = np.flatnonzero((outward < 0.5) & (upward > 0) & (upward < 1))
    bits = logo.bits[(upward[inside] * 5).astype(int), (outward[inside] * 6).astype(int)]
    stamped = inside[bits]
    on_ground = slots[stamped] == Slot.UPPER
    slots[stamped] = np.where(on_ground, Slot.UPPER_PRINT, Slot.UPPER)


def _paint_arm(outfit, u, v):
    slots = _filled(u, Slot.SKIN)
    sleeve = v < outfit.sleeve
    if outfit.upper == "vest" and outfit.sleeve >= 1:  # the shirt's sleeves
        slots[sleeve] = Slot.INNER
        return slots
    slots[sleeve] = Slot.UPPER
    design = outfit.upper_print.design
    if outfit.sleeve_print == "plain":
        second = sleeve
    elif outfit.sleeve_print == "cuff":
        second = v > outfit.sleeve - 0.1
    elif outfit.sleeve_print == "stripe":
        second = np.abs(np.abs(u) - 0.5) < 0.16
    elif outfit.sleeve_print == "band":
        second = np.abs(v - 0.3) < 0.07
    elif design in ALL_OVER and design != "vstripe":
        second = covers(outfit.upper_print, design, u, v, 0.9)
    else:
        return slots
    slots[sleeve & second] = Slot.UPPER_PRINT
    return slots


def _paint_leg(outfit, u, v):
    slots = _filled(u, Slot.SKIN)
    cloth = v < outfit.lower_length
    slots[cloth] = Slot.LOWER
    if outfit.lower_print == "side":
        second = np.abs(np.abs(u) - 0.5) < 0.11
    elif outfit.lower_print == "knee":
        second = np.abs(v - 0.52) < 0.09
    elif outfit.lower_print == "cuff":
        second = v > outfit.lower_length - 0.12
    else:
        second = covers(outfit.upper_print, outfit.lower_print, u, v, LOWER_DENSITY)
    slots[cloth & second] = Slot.LOWER_PRINT
    slots[v > 1 - outfit.boot] = Slot.SHOE
    return slots


def _paint_skirt(outfit, u, v):
    slots = _filled(u, Slot.LOWER)
    second = covers(outfit.upper_print, outfit.lower_print, u, v)
    if outfit.lower_print == "cuff":
        second = v > 0.85
    slots[second] = Slot.LOWER_PRINT
    return slots


def _paint_dress_skirt(outfit, u, v):
    slots = _filled(u, Slot.UPPER)
    if outfit.upper_print.design in ALL_OVER:
        second = covers(outfit.upper_print, outfit.upper_print.design, u, 1 - v)
        slots[second] = Slot.UPPER_PRINT
    return slots


def _paint_coat_tail(outfit, u, v):
    slots = _paint_dress_skirt(outfit, u, v)
    if outfit.opening:
        within = Slot.INNER if outfit.lower == "skirt" else Slot.LOWER
        slots[np.abs(u) < 0.9 * outfit.opening] = within
    return slots


def _paint_bag(outfit, u, v):
    slots = _filled(u, Slot.BAG)
    if outfit.bag.design == "panel":
        slots[(np.abs(u) < 0.3) & (v > 0.2) & (v < 0.7)] = Slot.BAG_PRINT
    elif outfit.bag.design == "hstripe":
        slots[(v * 4) % 1 < 0.35] = Slot.BAG_PRINT
    return slots


_PAINTERS = {
    Part.HOOD: _paint_hood,
    Part.TRUNK: _paint_trunk,
    Part.ARM: _paint_arm,
    Part.LEG: _paint_leg,
    Part.SKIRT: _paint_skirt,
    Part.DRESS_SKIRT: _paint_dress_skirt,
    Part.COAT_TAIL: _paint_coat_tail,
    Part.BAG: _paint_bag,
}
