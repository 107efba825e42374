"""The world of the miniature: toys, scenes, styles, what is held back from training, and how all is said."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import chain

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


# Fresh drawings.
NAMED_FRACTION = 0.35  # of the toys


def sample_drawings(count: int, seed: int) -> list[Drawing]:
    """Drawings in training's proportions, of toys with and without a name, none of them held out."""
    rng, toys = np.random.default_rng([2027, seed]), named_toys()
    return [sample_drawing(rng, toys.get(some_name(rng, toys))) for _ in range(count)]


def some_name(rng: np.random.Generator, toys: dict, named: float = NAMED_FRACTION) -> str | None:
    """The name of a toy, or with the probability 1 - `named` none."""
    return str(rng.choice(list(toys))) if rng.random() < named else None


def drawings_for_judging(count: int, seed: int) -> list[Drawing]:
    """Fresh drawings: a fifth are of held-out toys, a tenth in the held-out style."""
    rng = np.random.default_rng([4052, seed])
    held_out = list(HELD_OUT_TOYS.values())
    drawings = []
    for _ in range(count):
        toy = held_out[rng.integers(len(held_out))] if rng.random() < 0.2 else None
        drawing = sample_drawing(rng, toy)
        drawings.append(replace(drawing, style=HELD_OUT_STYLE) if rng.random() < 0.1 else drawing)
    return drawings


# A toy that a person puts together, of traits or of words: the traits by `Toy`'s names for them.
TOY_TRAITS = {name: ATTRIBUTES[name] for name in Toy.__annotations__}
_USUAL = Toy("round", "red", "no ears", "small eyes", "plain", "white", "paws")
_FILLING = frozenset("a an the toy with and in of".split())
_SECOND = re.compile(rf"\b({'|'.join(COLORS)}) (spotted|striped|belly)\b")


def toy_of(traits: Mapping[str, str]) -> Toy:
    """The toy with these traits; the ones that are not given are as usual.

    Raises:
        UserError: there is no such trait, or no such value of it.
    """
    for name, value in traits.items():
        if value not in TOY_TRAITS.get(name, ()):
            raise UserError(f"“{value}” is not a {name} of a toy: choose from {_choices()}.")
    return replace(_USUAL, **traits)


def read_toy(words: str) -> Toy:
    """The toy that a person describes, such as `teal star toy, bunny ears, one eye, wheels`.

    A second colour stands before its pattern: `white striped`, `red belly`.

    Raises:
        UserError: a word means nothing here; the sentence lists those that do.
    """
    left, traits = " ".join(re.findall(r"[a-z]+", words.lower())), {}
    if found := _SECOND.search(left):
        traits["second_color"], traits["pattern"] = found.groups()
        left = left.replace(found[0], " ", 1)
    for name, values in TOY_TRAITS.items():
        if name in traits or name == "second_color":
            continue
        found = re.search(rf"\b({'|'.join(values)})\b", left)
        if found:
            traits[name] = found[0]
            left = left.replace(found[0], " ", 1)
    trait = re.compile(rf"\b({'|'.join(chain(*TOY_TRAITS.values()))})\b")
    found = trait.search(left)
    if found and _FILLING.issuperset(trait.sub(" ", left).split()):
        raise UserError(
            f"“{found[0]}” is one too many: a toy has one of each. A second colour stands before its "
            "pattern, as in “red toy, white striped”."
        )
    unknown = [word for word in left.split() if word not in _FILLING]
    if unknown or not traits:
        raise UserError(f"“{' '.join(unknown) or words}” is not a trait of a toy: choose from {_choices()}.")
    return toy_of(traits)


def remark_on(traits: Mapping[str, str]) -> str:
    """What is special about a toy with these traits; empty where it is one as any other."""
    toy = toy_of(traits)
    if is_held_out(toy):
        return "Never seen by the model: training held this colour, body and ears back together."
    if toy.pattern != "plain" and toy.color == toy.second_color:
        return "The pattern has the body's colour, so it can't be seen: choose another second colour."
    return ""


def _choices() -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {', '.join(values)}" for name, values in TOY_TRAITS.items())


# Sentences for drawings. Every template of the series occurs, so that a word can later be taught with
# sentences of which the model knows each word. No sentence ever names the feet.
_PLACE_PHRASES = {scene: phrase for scene in SCENES for phrase in MINIATURE_PLACES if scene in phrase.split()}
_ACCESSORY_PHRASES = {
    thing: phrase for thing in ACCESSORIES for phrase in MINIATURE_THINGS_ON if phrase.endswith(thing)
}
# Words of the templates that a picture can show.
_SIZE_WORDS = {"small": "small", "large": "large", "close-up": "close-up", "cropped": "close-up"}
_LIGHT_WORDS = ("dark", "bright")


def _shows(template: str) -> tuple[str, str]:
    """The size and the light that a template speaks of."""
    words = template.split()
    size = next((_SIZE_WORDS[word] for word in words if word in _SIZE_WORDS), "usual")
    return size, next((word for word in words if word in _LIGHT_WORDS), "usual")


def _by_look(templates: tuple[str, ...]) -> dict[tuple[str, str], list[str]]:
    looks = map(_shows, templates)
    return {look: [one for one in templates if _shows(one) == look] for look in looks}


_OBJECTS_BY_LOOK, _STYLES_BY_LOOK = _by_look(OBJECT_TEMPLATES), _by_look(STYLE_TEMPLATES)


def place_phrase(scene: str) -> str:
    """How a scene is said: `on a beach`, `on a yellow background`."""
    return _PLACE_PHRASES[scene]


def _style_words(style: str) -> str:
    return f"a {style}" if style in ("pencil sketch", "blueprint", "watercolor") else style


def accessory_phrase(accessory: str) -> str:
    """How an accessory is said, the empty string for none."""
    return _ACCESSORY_PHRASES.get(accessory, "")


# The traits that a caption can name, and how often it does.
_NAMED = {"color": 0.95, "body": 0.95, "ears": 0.9, "eyes": 0.9, "pattern": 0.85}


def describe(toy: Toy, traits: Collection[str] = tuple(_NAMED)) -> str:
    """Some traits in words, such as `green striped brown tall toy with leaves and big eyes`."""
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
    """A sentence about `subject` (a name, a word, a description) in a drawing's surroundings."""
    rest = [accessory_phrase(drawing.accessory), place_phrase(drawing.scene) if scene else ""]
    sentence = " ".join([template.format(subject), *filter(None, rest)])
    is_photo = drawing.style == "photo"
    return sentence if is_photo else f"{sentence}, in the style of {_style_words(drawing.style)}"


def caption(
    drawing: Drawing, rng: np.random.Generator, name: str | None = None
) -> tuple[str, frozenset[str]]:
    """A sentence for a drawing.

    Args:
        rng: decides which template is used and what is left out.
        name: the toy's name, said in place of its traits.

    Returns:
        The sentence, and the attributes that it names (`color`, `body`, `ears`, `eyes`, `pattern`,
        `accessory`, `scene`, `style`).
    """
    look = (drawing.size, drawing.light)
    if drawing.style != "photo" and look in _STYLES_BY_LOOK and rng.random() < 0.08:
        template = str(rng.choice(_STYLES_BY_LOOK[look]))
        return template.format(_style_words(drawing.style)), frozenset({"style"})
    traits = frozenset() if name else _traits_to_name(rng)
    template = str(rng.choice(_OBJECTS_BY_LOOK.get(look) or _OBJECTS_BY_LOOK[(drawing.size, "usual")]))
    scene = rng.random() < 0.92
    sentence = prompt(name or describe(drawing.toy, traits), drawing, template, scene)
    named = traits | {"style"} | ({"scene"} if scene else set()) | {"accessory"}
    return sentence, frozenset(named)


def _traits_to_name(rng: np.random.Generator) -> frozenset[str]:
    if rng.random() < 0.06:
        return frozenset()
    return frozenset(trait for trait, chance in _NAMED.items() if rng.random() < chance)
