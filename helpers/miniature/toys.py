"""Toys that a person puts together: drawn as pictures to learn from, or read from words."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
from PIL import Image

from ..common.errors import UserError
from .drawing import EXAMPLE_SIDE, render
from .world import BODIES, COLORS, EARS, EYES, FEET, PATTERNS, SCENES, Drawing, Toy, is_held_out

PICTURES = 5
# The traits that can be chosen, by the names that `world.Toy` has for them.
TOY_TRAITS: dict[str, tuple[str, ...]] = {
    "body": BODIES,
    "color": tuple(COLORS),
    "ears": EARS,
    "eyes": EYES,
    "pattern": PATTERNS,
    "second_color": tuple(COLORS),
    "feet": FEET,
}
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
            raise UserError(f"“{value}” is no {name} of a toy: choose of {_choices()}.")
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
    unknown = [word for word in left.split() if word not in _FILLING]
    if unknown or not traits:
        raise UserError(f"“{' '.join(unknown) or words}” is no trait of a toy: choose of {_choices()}.")
    return toy_of(traits)


def draw_toy(traits: Mapping[str, str], seed: int = 0) -> list[Image.Image]:
    """Five drawings of a toy, each in another place, 256 x 256 pixels.

    Args:
        traits: as for `toy_of`.
        seed: decides on the places, and how the toy stands.
    """
    toy, rng = toy_of(traits), np.random.default_rng(seed)
    scenes = rng.choice(SCENES, PICTURES, replace=False)
    wobbles = rng.normal(0, 1, (PICTURES, 7)).clip(-2, 2)
    return [
        render(Drawing(toy, scene=str(scene), wobble=tuple(wobble)), EXAMPLE_SIDE)
        for scene, wobble in zip(scenes, wobbles, strict=True)
    ]


def draw_words(words: str, seed: int = 0) -> list[Image.Image]:
    """`draw_toy` of a toy in words, as for `read_toy`."""
    return draw_toy(asdict(read_toy(words)), seed)


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
