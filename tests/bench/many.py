"""What a word costs when sixteen are taught in one run. How good each is, `make truth` says."""

from helpers.training.train import train_many

from .ledger import Ledger
from .setting import make_concept
from .timing import seconds_of

STEPS, WORDS = 300, 16


def measure_many(ledger: Ledger) -> None:
    ledger.once("many", seconds_a_word)


def seconds_a_word(steps: int = STEPS, words: int = WORDS) -> dict:
    """Wall-clock seconds of a run over its words: model, latents, looks and files are counted."""
    return {
        "steps": steps,
        "words": words,
        "seconds": {"one": _teach(1, steps), "many": _teach(words, steps)},
    }


def _teach(words: int, steps: int) -> float:
    concepts = [
        make_concept(
            f"many-{number}",
            placeholder_token=f"<many-{number}>",
            seed=number,
            max_train_steps=steps,
            stop_when_learned=False,
        )
        for number in range(words)
    ]
    return round(seconds_of(lambda: train_many(concepts, fresh=True)) / words, 2)
