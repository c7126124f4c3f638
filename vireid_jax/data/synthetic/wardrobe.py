"""What a person wears: garments, prints and bags, and what each material looks like in each band.

The layout is one random stream, the visible colours a second, the infrared a third and fourth:
colour says nothing about infrared, while shape, layout and texture are common to all bands.
"""

import dataclasses
import enum

import numpy as np

from vireid_jax.data.synthetic.streams import choose


class Slot(enum.IntEnum):
    """The materials of a figure: the values of a garment map."""

    SKIN = 0
    HAIR = 1
    HAT = 2
    UPPER = 3
    UPPER_PRINT = 4
    INNER = 5  # the shirt under an open jacket
    LOWER = 6
    LOWER_PRINT = 7
    SHOE = 8
    BAG = 9
    BAG_PRINT = 10
    STRAP = 11
    SCARF = 12
    BELT = 13


PRINTED_PAIRS = (
    (Slot.UPPER, Slot.UPPER_PRINT),
    (Slot.LOWER, Slot.LOWER_PRINT),
    (Slot.BAG, Slot.BAG_PRINT),
)
"""A ground and the second colour printed on it."""


@dataclasses.dataclass(frozen=True)
class Print:
    """A two-colour design.

    Attributes:
      design: name, a key of UPPER_DESIGNS.
      frequency: repeats over the length of a garment.
      duty: share of the second colour in stripes.
      phase: shift of the stripes, in repeats.
      band: lower and upper height of the one broad band, 0..1.
      salt: of the camouflage blobs.
    """

    design: str
    frequency: float
    duty: float
    phase: float
    band: tuple[float, float]
    salt: int


@dataclasses.dataclass(frozen=True)
class Logo:
    """A symmetric bitmap on chest or back.

    Attributes:
      front, back: where it is.
      size: half a side, in trunk lengths.
      height: of its centre on the trunk, 0..1.
      bits: bool [5, 3], rows upwards, columns outwards from the middle.
    """

    front: bool
    back: bool
    size: float
    height: float
    bits: np.ndarray


@dataclasses.dataclass(frozen=True)
class Bag:
    """A bag: `kind` is a key of BAGS, `side` +1 for the person's left, -1 for the right."""

    kind: str
    size: float
    side: int
    design: str


@dataclasses.dataclass(frozen=True)
class Outfit:
    """Garments of one identity; names are keys of the weight tables below.

    Attributes:
      sleeve: length, 0..1 of the arm.
      lower_length, leg_width: trouser length 0..1 of the leg, and width factor.
      skirt_length, skirt_flare, coat_length: fractions of the leg; width factor at the hem.
      hem: how far the upper garment hangs below the waist line; tucked in if negative.
      opening: half width of an open front, in half turns; 0 if closed.
      boot: height of the boots, 0..1 of the leg.
    """

    hair: str
    hat: str
    upper: str
    sleeve: float
    lower: str
    lower_length: float
    leg_width: float
    skirt_length: float
    skirt_flare: float
    coat_length: float
    hem: float
    opening: float
    upper_print: Print
    logo: Logo
    lower_print: str
    sleeve_print: str
    belt: bool
    bag: Bag
    boot: float
    scarf: bool


HAIR = {
    True: {"short": 1, "buzz": 0.5, "bob": 2, "long": 3, "bun": 1.2, "tail": 2},
    False: {"short": 5, "buzz": 2.5, "bob": 0.8, "long": 0.4, "bun": 0.3, "tail": 0.3},
}
"""Weights for women (True) and men (False)."""
HATS = {"none": 7, "cap": 1.2, "beanie": 1, "hood": 0.8, "brim": 0.5}
UPPERS = {"tee": 3, "shirt": 2.5, "jacket": 3, "coat": 1.6, "hoodie": 2, "vest": 1, "dress": 1.6}
LOWERS = {"trousers": 4, "shorts": 1.6, "capri": 1, "skirt": 2, "slim": 2}
WOMENS = ("dress", "skirt")
UPPER_DESIGNS = {
    "solid": 4,
    "hstripe": 2,
    "vstripe": 1,
    "check": 1.5,
    "dots": 1,
    "band": 2,
    "split": 1.5,
    "yoke": 1.2,
    "diagonal": 1,
    "camouflage": 0.8,
}
LOWER_DESIGNS = {
    "solid": 6,
    "side": 1.6,
    "hstripe": 0.7,
    "check": 0.8,
    "knee": 0.8,
    "cuff": 1,
    "camouflage": 0.6,
}
SLEEVE_DESIGNS = {"same": 5, "plain": 1.6, "cuff": 1, "stripe": 1, "band": 1}
LOGOS = {"none": 4, "front": 3, "back": 1.5, "both": 1.5}
BAGS = {"none": 4, "backpack": 2.6, "shoulder": 1.4, "hand": 1.4, "cross": 1.4}
BAG_DESIGNS = {"solid": 1, "panel": 1, "hstripe": 1}
ALL_OVER = ("hstripe", "vstripe", "check", "dots", "diagonal", "camouflage")
"""Designs that repeat, so that they continue on sleeves, skirts and coat tails."""
OPENING_PROBABILITY = 0.7


def draw_outfit(rng: np.random.Generator, female: bool) -> Outfit:
    """Draws the layout of an identity's clothes."""
    hair = choose(rng, HAIR[female])
    hat = choose(rng, HATS)
    upper = choose(rng, _worn(UPPERS, female))
    lower = "bare" if upper == "dress" else choose(rng, _worn(LOWERS, female))
    can_open = upper in ("jacket", "coat", "vest")
    opening = rng.uniform(0.12, 0.5) if can_open and rng.random() < OPENING_PROBABILITY else 0.0
    where = choose(rng, LOGOS)
    return Outfit(
        hair=hair,
        hat=hat,
        upper=upper,
        sleeve=_draw_sleeve(rng, upper),
        lower=lower,
        lower_length=_draw_lower_length(rng, lower),
        leg_width=_draw_leg_width(rng, lower),
        skirt_length=rng.uniform(0.35, 0.9) if lower == "skirt" else rng.uniform(0.3, 0.75),
        skirt_flare=rng.uniform(1.15, 1.9),
        coat_length=rng.uniform(0.25, 0.75),
        hem=rng.uniform(-0.06, 0.10),
        opening=opening,
        upper_print=Print(
            design=choose(rng, UPPER_DESIGNS),
            frequency=rng.uniform(5, 20),
            duty=rng.uniform(0.3, 0.65),
            phase=rng.uniform(0, 1),
            band=tuple(np.sort(rng.uniform(0.05, 0.95, 2))),
            salt=int(rng.integers(1 << 30)),
        ),
        logo=Logo(
            front=where in ("front", "both"),
            back=where in ("back", "both"),
            size=rng.uniform(0.05, 0.12),
            height=rng.uniform(0.45, 0.8),
            bits=rng.random((5, 3)) < 0.55,
        ),
        lower_print=choose(rng, LOWER_DESIGNS),
        sleeve_print=choose(rng, SLEEVE_DESIGNS),
        belt=bool(rng.random() < 0.3),
        bag=Bag(
            kind=choose(rng, BAGS),
            size=rng.uniform(0.8, 1.35),
            side=1 if rng.random() < 0.5 else -1,
            design=choose(rng, BAG_DESIGNS),
        ),
        boot=rng.uniform(0, 0.5) if rng.random() < 0.3 else 0.04,
        scarf=bool(rng.random() < 0.12),
    )


def _worn(weights, female):
    return {name: w for name, w in weights.items() if female or name not in WOMENS}


def _draw_sleeve(rng, upper):
    if upper == "tee":
        return rng.uniform(0.28, 0.5)
    lengths = {"shirt": (0.45, 0.6, 1.0), "vest": (0.08, 1.0), "dress": (0.08, 0.35, 1.0)}
    return float(rng.choice(lengths.get(upper, (1.0,))))


def _draw_lower_length(rng, lower):
    if lower == "shorts":
        return rng.uniform(0.3, 0.5)
    if lower == "capri":
        return rng.uniform(0.62, 0.8)
    return 1.0 if lower in ("trousers", "slim") else 0.0


def _draw_leg_width(rng, lower):
    if lower == "trousers":
        return rng.uniform(1.15, 1.5)
    if lower == "shorts":
        return rng.uniform(1.15, 1.45)
    return {"slim": 1.02, "capri": 1.15}.get(lower, 1.0)


GREYS = (0.04, 0.08, 0.16, 0.3, 0.5, 0.75, 0.88)
GREY_PROBABILITY = 0.45
LEAST_COLOUR_DIFFERENCE = 0.35  # of a print to its ground, summed over RGB


def draw_visible(rng: np.random.Generator) -> np.ndarray:
    """Visible reflectance (linear RGB) of each slot, [14, 3] in (0, 1)."""
    colours = np.stack([_draw_cloth_colour(rng) for _ in Slot])
    colours[Slot.SKIN] = np.array([0.80, 0.60, 0.48]) * rng.uniform(0.35, 1.1)
    if rng.random() < 0.8:
        colours[Slot.HAIR] = np.array([0.12, 0.09, 0.07]) * rng.uniform(0.3, 2.2)
    else:
        colours[Slot.HAIR] = np.array([0.5, 0.36, 0.2]) * rng.uniform(0.6, 1.3)
    for ground, second in PRINTED_PAIRS:
        while np.abs(colours[ground] - colours[second]).sum() < LEAST_COLOUR_DIFFERENCE:
            colours[second] = _draw_cloth_colour(rng)
    return np.clip(colours, 0.015, 0.97)


def _draw_cloth_colour(rng):
    if rng.random() < GREY_PROBABILITY:
        return np.clip(rng.choice(GREYS) * (1 + rng.normal(0, 0.06, 3)), 0.02, 0.95)
    hue, saturation, value = rng.random(), rng.uniform(0.25, 0.95), rng.uniform(0.12, 0.9)
    sextant = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    return value * (1 - saturation * np.clip(np.minimum(sextant, 4 - sextant), 0, 1))


VANISHING_PROBABILITY = 0.3  # of a print in the near infrared, whatever its colours


def draw_near_infrared(rng: np.random.Generator) -> np.ndarray:
    """Near-infrared reflectance of each slot, [14] in (0, 1)."""
    reflectance = rng.uniform(0.12, 0.92, len(Slot))
    reflectance[Slot.SKIN] = rng.uniform(0.6, 0.75)
    reflectance[Slot.HAIR] = rng.uniform(0.12, 0.4)
    for ground, second in PRINTED_PAIRS:
        vanishes = rng.random() < VANISHING_PROBABILITY
        contrast = rng.uniform(0, 0.12) if vanishes else rng.uniform(0.22, 0.7)
        base = reflectance[ground]
        upwards = rng.random() < 0.5 or base - contrast < 0.05
        sign = 1 if upwards and base + contrast < 0.95 else -1
        reflectance[second] = base + sign * contrast
    return np.clip(reflectance, 0.05, 0.97)


def draw_long_wave(rng: np.random.Generator) -> np.ndarray:
    """Long-wave emission of each slot, [14] in (0, 1]: skin is hot, prints hardly show."""
    emission = rng.uniform(0.32, 0.72, len(Slot))
    emission[Slot.SKIN] = rng.uniform(0.88, 1.0)
    emission[Slot.HAIR] = rng.uniform(0.5, 0.75)
    emission[Slot.SHOE] = rng.uniform(0.25, 0.55)
    emission[Slot.BAG] = rng.uniform(0.15, 0.45)
    for ground, second in PRINTED_PAIRS:
        emission[second] = emission[ground] + rng.normal(0, 0.03)
    return np.clip(emission, 0.05, 1.0)
