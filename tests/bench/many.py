"""What a word costs when several are taught in one run."""

import shutil
import time

from helpers.training import train_many

from .ledger import Ledger, Measurement
from .plan import WORD_COUNTS
from .setting import make_concept

STEPS = 50


def measure_many(ledger: Ledger) -> None:
    for count in WORD_COUNTS:
        ledger.once(f"many/{count}", lambda count=count: seconds_per_concept(count))


def seconds_per_concept(count: int, steps: int = STEPS) -> Measurement:
    """Wall-clock seconds of a run of `count` words, each for `steps` steps, over their number.

    All is counted that a person waits for: model, latents, looks and files.
    """
    concepts = [
        make_concept(
            f"many-{number}",
            placeholder_token=f"<many-{number}>",
            seed=number,
            max_train_steps=steps,
            stop_when_learned=False,
        )
        for number in range(count)
    ]
    started = time.perf_counter()
    train_many(concepts, fresh=True)
    seconds = time.perf_counter() - started
    for concept in concepts:
        shutil.rmtree(concept.folder)
    return {"steps": steps, "seconds_per_concept": round(seconds / count, 2)}
