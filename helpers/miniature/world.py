"""The world of the miniature: toys, scenes, styles, and what is held back from training."""

from dataclasses import dataclass

import numpy as np

COLORS = {
    "red": "#e03c36",
    "orange": "#f58a1f",
    "yellow": "#f8d83a",
    "green": "#48ad4c",
    "teal": "#19b5b0",
    "blue": "#3567e0",
    "purple": "#8c45c9",
    "pink": "#f58fc0",
    "brown": "#85552f",
    "white": "#f6f6f2",
}
BODIES = ("round", "tall", "square", "star", "cone", "cloud")
EARS = ("no ears", "cat ears", "bunny ears", "horns", "antenna", "leaves")
EYES = ("small eyes", "big eyes", "sleepy eyes", "one eye")
PATTERNS = ("plain", "spotted", "striped", "belly")
# The trait that is drawn and judged, but that no caption ever names.
FEET = ("paws", "boots", "wheels")
ACCESSORIES = ("nothing", "scarf", "bow tie", "balloon", "flag")
PLACES = ("beach", "forest", "night", "snow", "city", "desert", "sea", "room")
BACKGROUNDS = ("white", "yellow", "pink", "green", "blue", "orange")
SCENES = PLACES + BACKGROUNDS
STYLES = ("photo", "pencil sketch", "neon", "pixel art", "blueprint", "watercolor")
# Never drawn in training, so that a style can be taught.
HELD_OUT_STYLE = "sepia"
SIZES = {"usual": 0.92, "small": 0.68, "large": 1.08, "close-up": 1.2}
LIGHTS = {"usual": 1.0, "dark": 0.68, "bright": 1.3}


@dataclass(frozen=True)
class Toy:
    """What stays the same about a toy wherever it goes."""

    body: str
    color: str
    ears: str
    eyes: str
    pattern: str
    second_color: str
    feet: str


@dataclass(frozen=True)
class Drawing:
    """One picture: a toy with something on it, somewhere, in a style. `wobble` are seven normal numbers."""

    toy: Toy
    accessory: str = "nothing"
    scene: str = "white"
    style: str = "photo"
    size: str = "usual"
    light: str = "usual"
    wobble: tuple[float, ...] = (0.0,) * 7


# Combinations of colour, body and ears that are never drawn in training. The first is grooty's.
HELD_OUT = (("brown", "tall", "leaves"), ("teal", "star", "bunny ears"), ("pink", "cone", "horns"))
HELD_OUT_TOYS = {
    "grooty": Toy("tall", "brown", "leaves", "big eyes", "striped", "green", "boots"),
    "starla": Toy("star", "teal", "bunny ears", "one eye", "belly", "white", "wheels"),
    "conrad": Toy("cone", "pink", "horns", "sleepy eyes", "spotted", "purple", "boots"),
}


def is_held_out(toy: Toy) -> bool:
    """Whether training must never draw this toy."""
    return (toy.color, toy.body, toy.ears) in HELD_OUT


def sample_toy(rng: np.random.Generator) -> Toy:
    """Draw a toy that is not held out, each trait independent of the others."""
    color, second = rng.choice(list(COLORS), 2, replace=False)
    toy = Toy(
        body=str(rng.choice(BODIES)),
        color=str(color),
        ears=str(rng.choice(EARS)),
        eyes=str(rng.choice(EYES)),
        pattern=str(rng.choice(PATTERNS)),
        second_color=str(second),
        feet=str(rng.choice(FEET)),
    )
    return sample_toy(rng) if is_held_out(toy) else toy


def sample_drawing(rng: np.random.Generator, toy: Toy | None = None) -> Drawing:
    """Draw a picture of `toy`, or of a toy of its own."""
    return Drawing(
        toy=toy or sample_toy(rng),
        accessory=str(rng.choice(ACCESSORIES, p=(0.4, 0.15, 0.15, 0.15, 0.15))),
        scene=str(rng.choice(SCENES)),
        style=str(rng.choice(STYLES, p=(0.45, 0.11, 0.11, 0.11, 0.11, 0.11))),
        size=str(rng.choice(list(SIZES), p=(0.82, 0.06, 0.06, 0.06))),
        light=str(rng.choice(list(LIGHTS), p=(0.9, 0.05, 0.05))),
        wobble=tuple(rng.normal(0, 1, 7).clip(-2, 2).round(3).tolist()),
    )


def _names(count: int) -> list[str]:
    starts = ("bo", "mi", "ta", "lu", "ke", "zo", "pi", "na", "fu", "re", "di", "wo")
    ends = ("bbo", "lki", "mpa", "nno", "rru", "ddle", "zzy", "ffin", "ppet", "lla", "xo", "gu", "sha", "vik")
    every = [start + end for start in starts for end in ends]
    return sorted(np.random.default_rng(5).permutation(every)[:count].tolist())


def named_toys() -> dict[str, Toy]:
    """The 160 toys that the model knows by name, as Stable Diffusion knows people and film characters.

    A name stands for every trait of its toy, the feet too: it is what the place of a word in the
    embedding table can mean. None of them is held out.
    """
    rng = np.random.default_rng(7)
    return {name: sample_toy(rng) for name in _names(160)}


def readable(attribute: str, drawing: Drawing) -> bool:
    """Whether an attribute of a drawing can be seen at all in its style and size."""
    colorless = drawing.style in ("pencil sketch", "blueprint", HELD_OUT_STYLE)
    if attribute in ("color", "pattern"):
        return not colorless
    if attribute == "second_color":
        return not (colorless or drawing.style == "neon") and drawing.toy.pattern != "plain"
    if attribute == "scene":
        return not (colorless and drawing.scene in BACKGROUNDS)
    if attribute == "feet":
        return drawing.size != "close-up"  # they may lie beyond the edge
    return not (attribute == "eyes" and drawing.style == "pixel art")


# A drawing's attributes as numbers, for the judge.
# What stays with a toy; the rest belongs to the picture.
TRAITS = ("body", "color", "ears", "eyes", "pattern", "feet")
# The attributes that a picture can be judged by, and the values of each.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "scene": SCENES,
    "style": (*STYLES, HELD_OUT_STYLE),
    "color": tuple(COLORS),
    "body": BODIES,
    "ears": EARS,
    "eyes": EYES,
    "pattern": PATTERNS,
    "second_color": tuple(COLORS),
    "accessory": ACCESSORIES,
    "feet": FEET,
}
UNREADABLE = -1
_OF_THE_PICTURE = ("scene", "style", "accessory")


def value_of(drawing: Drawing, attribute: str) -> str:
    """What a drawing has for an attribute."""
    return getattr(drawing if attribute in _OF_THE_PICTURE else drawing.toy, attribute)


def labels_of(drawing: Drawing) -> list[int]:
    """The index of each attribute's value, `UNREADABLE` where the style does not show it."""
    return [
        values.index(value_of(drawing, attribute)) if readable(attribute, drawing) else UNREADABLE
        for attribute, values in ATTRIBUTES.items()
    ]
