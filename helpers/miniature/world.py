"""The miniature's world: toys, scenes and styles, what is held out from training, and captions."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from ..common.errors import UserError
from ..concept.templates import MINIATURE_PLACES, MINIATURE_THINGS_ON, OBJECT_TEMPLATES, STYLE_TEMPLATES

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
# Held out from training, so that a style can be taught.
HELD_OUT_STYLE = "sepia"
SIZES = {"usual": 0.92, "small": 0.68, "large": 1.08, "close-up": 1.2}
LIGHTS = {"usual": 1.0, "dark": 0.68, "bright": 1.3}


@dataclass(frozen=True)
class Toy:
    """The traits that a toy keeps from picture to picture."""

    body: str
    color: str
    ears: str
    eyes: str
    pattern: str
    second_color: str
    feet: str


@dataclass(frozen=True)
class Drawing:
    """One picture: a toy, its surroundings and a style. `wobble`: seven standard normal numbers."""

    toy: Toy
    accessory: str = "nothing"
    scene: str = "white"
    style: str = "photo"
    size: str = "usual"
    light: str = "usual"
    wobble: tuple[float, ...] = (0.0,) * 7


# Held out from training are all toys with the colour, body and ears of one of these.
HELD_OUT_TOYS = {
    "grooty": Toy("tall", "brown", "leaves", "big eyes", "striped", "green", "boots"),
    "starla": Toy("star", "teal", "bunny ears", "one eye", "belly", "white", "wheels"),
    "conrad": Toy("cone", "pink", "horns", "sleepy eyes", "spotted", "purple", "boots"),
}
HELD_OUT = tuple((toy.color, toy.body, toy.ears) for toy in HELD_OUT_TOYS.values())

# The traits by which a toy's identity is scored.
TRAITS = ("body", "color", "ears", "eyes", "pattern", "feet")
# The attributes that the judge reads, and their values.
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
TOY_TRAITS = {name: ATTRIBUTES[name] for name in Toy.__annotations__}
UNREADABLE = -1


def is_held_out(toy: Toy) -> bool:
    """Whether training never draws this toy."""
    return (toy.color, toy.body, toy.ears) in HELD_OUT


def sample_toy(rng: np.random.Generator) -> Toy:
    """A random toy that is not held out; its traits are independent."""
    color, second = rng.choice(list(COLORS), 2, replace=False)
    others = {name: str(rng.choice(values)) for name, values in TOY_TRAITS.items() if "color" not in name}
    toy = Toy(color=str(color), second_color=str(second), **others)
    return sample_toy(rng) if is_held_out(toy) else toy


def sample_drawing(rng: np.random.Generator, toy: Toy | None = None) -> Drawing:
    """A random picture of `toy`, or of a random toy."""
    return Drawing(
        toy=toy or sample_toy(rng),
        accessory=str(rng.choice(ACCESSORIES, p=(0.4, 0.15, 0.15, 0.15, 0.15))),
        scene=str(rng.choice(SCENES)),
        style=str(rng.choice(STYLES, p=(0.45, 0.11, 0.11, 0.11, 0.11, 0.11))),
        size=str(rng.choice(list(SIZES), p=(0.82, 0.06, 0.06, 0.06))),
        light=str(rng.choice(list(LIGHTS), p=(0.9, 0.05, 0.05))),
        wobble=tuple(rng.normal(0, 1, 7).clip(-2, 2).round(3).tolist()),
    )


def named_toys() -> dict[str, Toy]:
    """The 160 toys that the model knows by name, as Stable Diffusion knows people and film characters.

    A name stands for all traits of its toy, even the feet: this teaches the model that one row of the
    embedding table can mean all that. None of the toys is held out.
    """
    starts = ("bo", "mi", "ta", "lu", "ke", "zo", "pi", "na", "fu", "re", "di", "wo")
    ends = ("bbo", "lki", "mpa", "nno", "rru", "ddle", "zzy", "ffin", "ppet", "lla", "xo", "gu", "sha", "vik")
    names = np.random.default_rng(5).permutation([start + end for start, end in product(starts, ends)])
    rng = np.random.default_rng(7)
    return {name: sample_toy(rng) for name in sorted(names[:160].tolist())}


def readable(attribute: str, drawing: Drawing) -> bool:
    """Whether an attribute can be seen in a drawing's style and size."""
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


def value_of(drawing: Drawing, attribute: str) -> str:
    """A drawing's value of an attribute."""
    return getattr(drawing.toy if attribute in TOY_TRAITS else drawing, attribute)


def shown_values(drawing: Drawing, attributes: Iterable[str] = ATTRIBUTES) -> dict[str, str]:
    """A drawing's values of those attributes that can be seen in it."""
    return {name: value_of(drawing, name) for name in attributes if readable(name, drawing)}


def labels_of(drawing: Drawing) -> list[int]:
    """The index of each attribute's value, or `UNREADABLE`."""
    shown = shown_values(drawing)
    return [values.index(shown[name]) if name in shown else UNREADABLE for name, values in ATTRIBUTES.items()]


# Random drawings.
NAMED_FRACTION, MORE_NAMED_FRACTION = 0.35, 0.5  # of the toys; more in the last session
CAPTIONS = 3  # sentences for each picture


def sample_drawings(count: int, seed: int) -> list[Drawing]:
    """Random drawings of toys with and without a name, in training's proportions; none is held out."""
    rng, toys = np.random.default_rng([2027, seed]), named_toys()
    return [sample_drawing(rng, toys.get(random_name(rng, toys))) for _ in range(count)]


def random_name(rng: np.random.Generator, toys: dict, named: float = NAMED_FRACTION) -> str | None:
    """The name of a toy with probability `named`, otherwise None."""
    return str(rng.choice(list(toys))) if rng.random() < named else None


def drawings_for_judging(count: int, seed: int) -> list[Drawing]:
    """Random drawings, a fifth of held-out toys, a tenth in the held-out style."""
    rng = np.random.default_rng([4052, seed])
    held_out = list(HELD_OUT_TOYS.values())
    drawings = []
    for _ in range(count):
        toy = held_out[rng.integers(len(held_out))] if rng.random() < 0.2 else None
        drawing = sample_drawing(rng, toy)
        drawings.append(replace(drawing, style=HELD_OUT_STYLE) if rng.random() < 0.1 else drawing)
    return drawings


# A toy that a person describes, by traits or in words.
_USUAL = Toy("round", "red", "no ears", "small eyes", "plain", "white", "paws")
_FILLING = frozenset("a an the toy with and in of".split())


def toy_of(traits: Mapping[str, str]) -> Toy:
    """The toy with these traits; those that are not given have default values.

    Raises:
        UserError: there is no such trait, or no such value of it.
    """
    for name, value in traits.items():
        if value not in TOY_TRAITS.get(name, ()):
            raise UserError(f"“{value}” is not a {name} of a toy: choose from {_choices()}.")
    return replace(_USUAL, **traits)


def read_toy(words: str) -> Toy:
    """Parse a description such as `teal star toy, bunny ears, one eye, wheels`.

    The second colour precedes its pattern: `white striped`, `red belly`.

    Raises:
        UserError: a word is not known, or there are two of a trait.
    """
    traits, left = {}, []
    for said in _trait_or_word().finditer(" ".join(re.findall(r"[a-z]+", words.lower()))):
        if said.lastgroup and said.lastgroup not in traits:
            traits[said.lastgroup] = said[0]
        elif said[0] not in _FILLING:
            left.append(said)
    if left and all(said.lastgroup for said in left):
        raise UserError(
            f"“{left[0][0]}” is one too many: a toy has one of each. A second colour stands before its "
            "pattern, as in “red toy, white striped”."
        )
    if left or not traits:
        unknown = " ".join(said[0] for said in left) or words
        raise UserError(f"“{unknown}” is not a trait of a toy: choose from {_choices()}.")
    return toy_of(traits)


@cache
def _trait_or_word() -> re.Pattern:
    """Matches a trait's value, in a group of the trait's name, or else any word."""
    second = rf"(?P<second_color>{'|'.join(COLORS)})(?= (?:spotted|striped|belly)\b)"
    others = {name: "|".join(values) for name, values in TOY_TRAITS.items() if name != "second_color"}
    return re.compile("|".join([second, *(rf"(?P<{name}>{others[name]})\b" for name in others), r"\w+"]))


def remark_on(traits: Mapping[str, str]) -> str:
    """A remark on a toy with these traits, if there is something special about it."""
    toy = toy_of(traits)
    if is_held_out(toy):
        return "Never seen by the model: training held this colour, body and ears back together."
    if toy.pattern != "plain" and toy.color == toy.second_color:
        return "The pattern has the body's colour, so it can't be seen: choose another second colour."
    return ""


def _choices() -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {', '.join(values)}" for name, values in TOY_TRAITS.items())


# Captions. They use all templates of the series, so that the model knows every word of the sentences that a
# new word is taught with. No caption names the feet.
# The phrases of scenes and accessories: `on a beach`, `on a yellow background`, `wearing a scarf`.
PLACE_PHRASES = {scene: phrase for scene in SCENES for phrase in MINIATURE_PLACES if scene in phrase.split()}
ACCESSORY_PHRASES = {"nothing": ""} | {
    thing: phrase for thing in ACCESSORIES for phrase in MINIATURE_THINGS_ON if phrase.endswith(thing)
}
# Words of the templates that a picture can show.
_SIZE_WORDS = {"small": "small", "large": "large", "close-up": "close-up", "cropped": "close-up"}
_LIGHT_WORDS = {"dark": "dark", "bright": "bright"}


@cache
def _templates_showing(templates: tuple[str, ...], size: str, light: str) -> list[str]:
    """The templates that mention this size and this light."""

    def mentioned(template: str, known: Mapping[str, str]) -> str:
        return next((known[word] for word in template.split() if word in known), "usual")

    wanted = (size, light)
    return [one for one in templates if (mentioned(one, _SIZE_WORDS), mentioned(one, _LIGHT_WORDS)) == wanted]


def _style_words(style: str) -> str:
    return f"a {style}" if style in ("pencil sketch", "blueprint", "watercolor") else style


# The traits that a caption can name, and how often it does.
_NAMED = {"color": 0.95, "body": 0.95, "ears": 0.9, "eyes": 0.9, "pattern": 0.85}


def describe(toy: Toy, traits: Collection[str] = tuple(_NAMED)) -> str:
    """Some of a toy's traits in words, such as `green striped brown tall toy with leaves and big eyes`."""
    words, features = [], []
    if "pattern" in traits and toy.pattern == "belly":
        features.append(f"{toy.second_color} belly")
    elif "pattern" in traits:
        words.append("plain" if toy.pattern == "plain" else f"{toy.second_color} {toy.pattern}")
    words += [getattr(toy, trait) for trait in ("color", "body") if trait in traits]
    features = [getattr(toy, trait) for trait in ("ears", "eyes") if trait in traits] + features
    noun = " ".join([*words, "toy"])
    return f"{noun} with {' and '.join(features)}" if features else noun


def prompt(subject: str, drawing: Drawing, template: str = "a photo of a {}", scene: bool = True) -> str:
    """A prompt for `subject` (a name, a word, a description) in a drawing's surroundings."""
    rest = [ACCESSORY_PHRASES[drawing.accessory], PLACE_PHRASES[drawing.scene] if scene else ""]
    sentence = " ".join([template.format(subject), *filter(None, rest)])
    is_photo = drawing.style == "photo"
    return sentence if is_photo else f"{sentence}, in the style of {_style_words(drawing.style)}"


def caption(
    drawing: Drawing, rng: np.random.Generator, name: str | None = None
) -> tuple[str, frozenset[str]]:
    """A random caption for a drawing, and the attributes that it names.

    Args:
        rng: chooses the template and what is left out.
        name: the toy's name, used instead of its traits.
    """
    of_style = _templates_showing(STYLE_TEMPLATES, drawing.size, drawing.light)
    if drawing.style != "photo" and of_style and rng.random() < 0.08:
        return str(rng.choice(of_style)).format(_style_words(drawing.style)), frozenset({"style"})
    traits = frozenset() if name else _traits_to_name(rng)
    of_object = _templates_showing(OBJECT_TEMPLATES, drawing.size, drawing.light)
    template = str(rng.choice(of_object or _templates_showing(OBJECT_TEMPLATES, drawing.size, "usual")))
    scene = rng.random() < 0.92
    sentence = prompt(name or describe(drawing.toy, traits), drawing, template, scene)
    return sentence, traits | {"style", "accessory"} | ({"scene"} if scene else set())


def _traits_to_name(rng: np.random.Generator) -> frozenset[str]:
    if rng.random() < 0.06:
        return frozenset()
    return frozenset(trait for trait, chance in _NAMED.items() if rng.random() < chance)
