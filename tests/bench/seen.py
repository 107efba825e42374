"""`python -m tests.bench.seen`: how often does the base model see the place and what is on, rightly?

The pictures are those of a population; what they show is known from their drawings. The captions that
`describe_pictures` writes are made at the first row's timesteps, the other rows are beside it.
"""

import argparse
import os
import time
from collections.abc import Sequence

import torch

from helpers.common.places import ROOT_VARIABLE
from helpers.miniature.world import ACCESSORY_PHRASES, PLACE_PHRASES
from helpers.model.machine import quiet_loading
from helpers.training.describe import OF_PLACES, OF_THINGS, Captioner
from helpers.training.model import load_model

from .population import SETTINGS, Setting, Sitter, population
from .truth import folder, make_concept

TIMESTEPS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "as it is": (OF_PLACES, OF_THINGS),
    "places in the middle": ((0.3, 0.4, 0.5, 0.6, 0.7), OF_THINGS),
    "things under much noise": (OF_PLACES, (0.8, 0.9)),
    "more of each": ((0.8, 0.85, 0.9, 0.95), (0.35, 0.5, 0.65)),
}


def measure(sitters: list[Sitter], name: str, captioner: Captioner) -> tuple[float, float, float]:
    """The share of pictures whose place, and whose thing, was seen rightly; seconds a picture."""
    places, things, pictures = 0, 0, 0
    started = time.perf_counter()
    for number, sitter in enumerate(sitters):
        captioner.concept = make_concept(f"{name}-{number}", sitter)
        for place, drawing in enumerate(sitter.drawings, start=1):
            seen = captioner(f"{place:03}.png")
            places += seen.place == PLACE_PHRASES[drawing.scene]
            things += seen.thing_on == ACCESSORY_PHRASES[drawing.accessory]
            pictures += 1
    return places / pictures, things / pictures, (time.perf_counter() - started) / pictures


def rows(toys: int, seed: int, setting: Setting) -> None:
    """Print a line for each choice of timesteps."""
    sitters, name = population(toys, seed, setting), f"seen-{setting}-{seed}"
    concept = make_concept(f"{name}-0", sitters[0])
    captioner = Captioner(concept, load_model(concept, torch.device("cpu")))
    for row, (of_places, of_things) in TIMESTEPS.items():
        captioner.of_places, captioner.of_things = of_places, of_things
        place, thing, seconds = measure(sitters, name, captioner)
        print(
            f"{setting}, seed {seed}, {row}: place {place:.3f}, thing {thing:.3f}, {seconds:.2f} s a picture",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.seen", description=__doc__.splitlines()[0])
    parser.add_argument("--toys", type=int, default=12, help="of each seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[100], help="by which toys are drawn")
    given = parser.parse_args(arguments)
    os.environ[ROOT_VARIABLE] = str(folder() / "concepts")
    with quiet_loading():
        for seed in given.seed:
            for setting in SETTINGS:
                rows(given.toys, seed, setting)


if __name__ == "__main__":
    main()
