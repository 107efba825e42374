"""What a word costs when several are taught in one run, and whether it is learned as well as alone."""

import shutil
import time
from collections.abc import Sequence
from functools import cache

from helpers.concept.concept import Concept
from helpers.concept.embedding import Rows, load_rows
from helpers.training.train import train_many

from .ledger import Ledger, Measurement
from .ours import BareOurs
from .plan import SEEDS, WORD_COUNTS, alone, together
from .setting import SharedLoss, make_concept, our_model

STEPS = 50


def measure_many(ledger: Ledger) -> None:
    """Each seed by itself, then runs of many words, which have the same seeds in turn."""
    for seed in SEEDS:
        ledger.once(alone(seed), lambda seed=seed: teach([seed]))
    for count in WORD_COUNTS:
        seeds = [SEEDS[number % len(SEEDS)] for number in range(count)]
        ledger.once(together(count), lambda seeds=seeds: teach(seeds))


def teach(seeds: Sequence[int], steps: int = STEPS) -> Measurement:
    """One run of a word for each seed, each for `steps` steps.

    Returns:
        `seconds_per_concept`: wall-clock seconds over the number of words; all is counted that a person
            waits for: model, latents, looks and files.
        `gains`: how far each word's result is below the initializer, by the loss that all runs share.
    """
    concepts = [_word(number, seed, steps) for number, seed in enumerate(seeds)]
    started = time.perf_counter()
    train_many(concepts, fresh=True)
    seconds = time.perf_counter() - started
    gains = [round(gain(load_rows(concept.embeds_path)), 6) for concept in concepts]
    for concept in concepts:
        shutil.rmtree(concept.folder)
    return {"steps": steps, "seconds_per_concept": round(seconds / len(seeds), 2), "gains": gains}


def gain(rows: Rows) -> float:
    """How much lower the shared loss is with these rows than with the initializer's."""
    ours, loss_of, start = _scene()
    ours.learner.set_rows(rows)
    return start - loss_of(ours.model)


@cache
def _scene() -> tuple[BareOurs, SharedLoss, float]:
    """A model with a place for the word, the loss, and what it is for the initializer."""
    concept = make_concept("many-compared")
    ours, loss_of = BareOurs(concept, our_model(concept)), SharedLoss(concept)
    return ours, loss_of, loss_of(ours.model)


def _word(number: int, seed: int, steps: int) -> Concept:
    return make_concept(
        f"many-{number}",
        placeholder_token=f"<many-{number}>",
        seed=seed,
        max_train_steps=steps,
        stop_when_learned=False,
    )
