"""Toys that nobody tuned to: drawn from the held-out combinations, every other trait by chance.

A population is drawn by its seed alone. Settings are chosen on some seeds and reported on others.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from helpers.miniature.world import (
    ACCESSORIES,
    COLORS,
    EYES,
    FEET,
    HELD_OUT,
    PATTERNS,
    SCENES,
    Drawing,
    Toy,
)

PICTURES = 5  # of a toy
SETTINGS = ("easy", "hard")
Setting = Literal["easy", "hard"]
HAND_HELD = 0.25  # of a wobble's deviation: how far photos of one pose differ


@dataclass(frozen=True)
class Sitter:
    """A toy and the pictures that a word for it is learned from."""

    toy: Toy
    drawings: tuple[Drawing, ...]


def population(toys: int, seed: int, setting: Setting) -> list[Sitter]:
    """Draw toys and five pictures of each; the toys are the same in both settings.

    `easy`: five different scenes, nothing on, each picture's wobble by chance. `hard`, as people really
    take photos: one scene, one accessory, one pose, from which the pictures differ by `HAND_HELD`.

    Args:
        toys: how many; the held-out combinations take turns.
        seed: of all that is drawn.
    """
    return [
        Sitter(toy, _drawings(toy, np.random.default_rng((seed, number, SETTINGS.index(setting))), setting))
        for number, toy in enumerate(_toys(toys, np.random.default_rng(seed)))
    ]


def _toys(count: int, rng: np.random.Generator) -> list[Toy]:
    return [_toy(*HELD_OUT[number % len(HELD_OUT)], rng) for number in range(count)]


def _toy(color: str, body: str, ears: str, rng: np.random.Generator) -> Toy:
    others = [other for other in COLORS if other != color]
    return Toy(
        body=body,
        color=color,
        ears=ears,
        eyes=str(rng.choice(EYES)),
        pattern=str(rng.choice(PATTERNS)),
        second_color=str(rng.choice(others)),
        feet=str(rng.choice(FEET)),
    )


def _drawings(toy: Toy, rng: np.random.Generator, setting: Setting) -> tuple[Drawing, ...]:
    if setting == "easy":
        scenes = rng.choice(SCENES, PICTURES, replace=False)
        return tuple(Drawing(toy, scene=str(scene), wobble=_wobble(rng)) for scene in scenes)
    scene, accessory = str(rng.choice(SCENES)), str(rng.choice(ACCESSORIES[1:]))
    pose = np.array(_wobble(rng))
    wobbles = [pose + HAND_HELD * np.array(_wobble(rng)) for _ in range(PICTURES)]
    return tuple(
        Drawing(toy, accessory=accessory, scene=scene, wobble=tuple(wobble.round(3).tolist()))
        for wobble in wobbles
    )


def _wobble(rng: np.random.Generator) -> tuple[float, ...]:
    """As `world.sample_drawing` draws it."""
    return tuple(rng.normal(0, 1, 7).clip(-2, 2).round(3).tolist())
