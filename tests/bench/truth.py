"""`make truth`: is a word as good on toys that nobody tuned to, and beside the well-known loops?

Toys are drawn by chance (`population`), each is taught by each trainer from the same five pictures, and
the judge reads 64 pictures of every word. Each result is written when it is finished, so that a run that
was killed goes on; one of other weights or other default settings is not mixed with them.

Settings are chosen on other toys: `--seed 100` changes one thing about ours at a time, and writes
`tried.json` and the table of this folder's README.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.common.files import write_whole
from helpers.common.places import ROOT_VARIABLE, miniature_hash, repository_folder
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.dataset.images import image_paths
from helpers.inference.examples import examples_for
from helpers.inference.pipeline import pipeline_with_word
from helpers.miniature.drawing import render
from helpers.miniature.judge import (
    Judge,
    Reading,
    evaluation_surroundings,
    read_subject,
    score_readings,
)
from helpers.miniature.world import TRAITS, Drawing, describe, readable
from helpers.model.base_model import MINIATURE, load_pipeline
from helpers.model.machine import quiet_loading
from helpers.training.describe import describe_pictures
from helpers.training.train import train_many

from .ledger import this_machine
from .population import SETTINGS, Setting, Sitter, population
from .rivals import DiffusersLoop, SourceLoop
from .setting import INITIALIZER, their_parts
from .table import write_table
from .truth_table import rows_of, section

PATH = Path(__file__).with_name("truth.json")
CHOSEN_BY = 100  # the first seed of the toys that settings are chosen by
SIDE = 256  # pixels of a drawing, as the pictures that ship have
STEPS = 1000  # of a rival


def described(trainer: "Trainer") -> "Trainer":
    """After the model has written captions for the pictures, as in notebook 3."""

    def run(concepts: list[Concept]) -> None:
        for concept in concepts:
            describe_pictures(concept)
        trainer(concepts)

    return run


def rival(kind: type[SourceLoop], rate: float) -> "Trainer":
    """A well-known loop for 1,000 steps at one learning rate, with as many vectors as ours."""

    def run(concepts: list[Concept]) -> None:
        for concept in concepts:
            loop = kind(their_parts(), concept, rate, seed=concept.training.seed)
            for _ in range(STEPS):
                loop.step()
            save_result(concept, loop.rows())

    return run


def with_other(**settings) -> "Trainer":
    """Ours with other settings than the default."""

    def run(concepts: list[Concept]) -> None:
        concepts = [concept.changed(**settings) for concept in concepts]
        for concept in concepts:
            concept.save()
        ours(concepts)

    return run


def nothing(concepts: list[Concept]) -> None:
    """No word: the toy's fullest description is what the judge looks at."""


Trainer = Callable[[list[Concept]], Any]
ours = described(train_many)
TOGETHER, DESCRIPTION = "ours, 16 in one run", "the fullest description, no word"
IN_ONE_RUN = 16  # words of `TOGETHER`
REPORTED: dict[str, Trainer] = {
    "ours": ours,
    TOGETHER: ours,
    "source 5e-4": rival(SourceLoop, 5e-4),
    "diffusers 5e-4": rival(DiffusersLoop, 5e-4),
    "diffusers 5e-3": rival(DiffusersLoop, 5e-3),
    "diffusers 2e-2": rival(DiffusersLoop, 2e-2),
    DESCRIPTION: nothing,
}
TRIED: dict[str, Trainer] = {
    "ours": ours,
    "without captions": train_many,
    "four vectors": with_other(vectors=4),
    "norm left free": with_other(training={"norm": "free"}),
    "diffusers 5e-3 with captions": described(rival(DiffusersLoop, 5e-3)),
}
TRAINERS = REPORTED | TRIED


def folder() -> Path:
    """Where results lie: a folder for each combination of weights and default settings of the training."""
    settings = hashlib.sha256(Concept.make("x").training.model_dump_json().encode()).hexdigest()[:8]
    return repository_folder() / "build" / "truth" / f"{miniature_hash()}-{settings}"


@dataclass(frozen=True)
class Word:
    """One word to be learned: by which trainer, and of which toy of a population."""

    trainer: str
    setting: Setting
    seed: int
    toy: int

    @property
    def name(self) -> str:
        """Of its concept and of its files."""
        return f"{self.setting}-{self.seed}-{self.toy}-{self.trainer.replace(',', '').replace(' ', '-')}"

    def file(self, suffix: str) -> Path:
        return folder() / f"{self.name}.{suffix}"


def teach(words: list[Word]) -> None:
    """Learn words in one run, unless they have been, and note the processor seconds of each.

    They are those of this process and its children, shared out over the words.
    """
    if all(word.file("taught").is_file() for word in words):
        return
    concepts = [concept_of(word)[0] for word in words]
    before = _processor_seconds()
    TRAINERS[words[0].trainer](concepts)
    seconds = (_processor_seconds() - before) / len(words)
    for word in words:
        write_whole(word.file("taught"), f"{seconds:.1f}\n")


def judge(words: list[Word]) -> None:
    """Score words that were learned, unless they have been."""
    for word in words:
        path, taught = word.file("json"), word.file("taught")
        if path.is_file() or not taught.is_file():
            continue
        seconds = float(taught.read_text(encoding="utf-8"))
        result = {**asdict(word), "seconds": seconds, **judged(word)}
        write_whole(path, json.dumps(result) + "\n")
        shown = {name: result[name] for name in ("identity", "prompt", "leak", "seconds")}
        print(word.name, shown, flush=True)


def concept_of(word: Word) -> tuple[Concept, Sitter]:
    sitter = population(word.toy + 1, word.seed, word.setting)[word.toy]
    return make_concept(word.name, sitter), sitter


def _processor_seconds() -> float:
    """Which other programs do not lengthen much."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def make_concept(name: str, sitter: Sitter) -> Concept:
    """A concept with the drawings of a toy; its settings are the defaults, but no samples are drawn."""
    concept = Concept.make(name, initializer_token=INITIALIZER, training={"sample_every": 0})
    if concept.folder.is_dir():
        concept = Concept.load(name)  # training goes on where it was killed
    else:
        concept.save()
    concept.images_folder.mkdir(exist_ok=True)
    for place, drawing in enumerate(sitter.drawings, start=1):
        path = concept.images_folder / f"{place:03}.png"
        if not path.is_file():
            render(drawing, SIDE).save(path)
    assert len(image_paths(concept)) == len(sitter.drawings)
    return concept


def judged(word: Word) -> dict[str, Any]:
    """What the judge says of a learned word, or of the description, on 64 pictures."""
    concept, sitter = concept_of(word)
    wanted, guidance = evaluation_surroundings(sitter.toy), examples_for(concept).guidance
    if word.trainer == DESCRIPTION:
        pipeline, subject = load_pipeline(MINIATURE), describe(sitter.toy)
    else:
        pipeline, subject = pipeline_with_word(concept), concept.placeholder_token
    pipeline.set_progress_bar_config(disable=True)
    readings = read_subject(pipeline, subject, wanted, _judge(), guidance)
    scores = score_readings(readings, wanted)
    kept = {name: scores[name] for name in ("identity", "prompt", "traits")}
    return {**kept, "leak": leak(readings, wanted, sitter.drawings)}


def leak(readings: list[Reading], wanted: list[Drawing], learned_from: tuple[Drawing, ...]) -> float:
    """How often the old place or thing comes, of the pictures that were asked for elsewhere and bare."""
    places = {drawing.scene for drawing in learned_from}
    things = {drawing.accessory for drawing in learned_from} - {"nothing"}
    came = [
        (reading["scene"] in places and readable("scene", drawing)) or reading["accessory"] in things
        for reading, drawing in zip(readings, wanted, strict=True)
        if drawing.scene not in places
    ]
    return round(float(np.mean(came)), 4)


@cache
def _judge() -> Judge:
    return Judge.load()


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the toys of one trainer in one setting, with identity's deviation and its least."""
    identities = [result["identity"] for result in results]
    means = {name: _mean(result[name] for result in results) for name in ("prompt", "leak", "seconds")}
    return {
        "toys": len(results),
        "seeds": sorted({result["seed"] for result in results}),
        "identity": _mean(identities),
        "deviation": round(float(np.std(identities)), 4),
        "least": min(identities),
        "traits": {trait: _mean(result["traits"][trait] for result in results) for trait in TRAITS},
        **means,
    }


def _mean(values: Iterator[float] | list[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def content(results: list[dict[str, Any]]) -> dict[str, Any]:
    """All that is known, by trainer and setting, and each result."""
    cells: dict[str, dict[str, Any]] = {}
    for trainer, setting in product(TRAINERS, SETTINGS):
        own = [one for one in results if (one["trainer"], one["setting"]) == (trainer, setting)]
        if own:
            cells.setdefault(trainer, {})[setting] = summary(own)
    made_on = {"miniature": miniature_hash(), "machine": this_machine()["processor"]}
    return {**made_on, **cells, "results": results}


def known_results(seeds: list[int]) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder().glob("*.json"))]
    return [result for result in found if result["seed"] in seeds]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.truth", description=__doc__.splitlines()[0])
    parser.add_argument("--toys", type=int, default=12, help="of each seed")
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3], help="by which toys are drawn")
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, help="all unless given")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    given = parser.parse_args(arguments)
    folder().mkdir(parents=True, exist_ok=True)
    os.environ[ROOT_VARIABLE] = str(folder() / "concepts")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the workers, and what describes pictures, load torch
    torch.set_num_threads(1)  # more would make processor seconds of waiting for each other
    trainers = given.trainers or list(TRIED if is_for_choosing(given.seed) else REPORTED)
    runs = runs_of(given.toys, given.seed, given.setting, trainers)
    for _ in in_workers(partial(work, stages=given.stages), runs, given.workers):
        report(given.seed)  # after each, so that one which is killed leaves a table


def runs_of(toys: int, seeds: list[int], settings: list[Setting], trainers: list[str]) -> list[list[Word]]:
    """The words of each run: one, or sixteen for `TOGETHER`, however few toys were asked for."""
    words = [Word(*which) for which in product(trainers, settings, seeds, range(toys))]
    alone = sorted(([word] for word in words if word.trainer != TOGETHER), key=lambda run: run[0].toy)
    groups = [
        [Word(TOGETHER, setting, seed, toy) for toy in range(IN_ONE_RUN)]
        for setting, seed in product(settings, seeds)
    ]
    return alone + groups if TOGETHER in trainers else alone


def in_workers(task: Callable[[list[Word]], None], runs: list[list[Word]], workers: int) -> Iterator[None]:
    """Do the task for each run; one worker is this process."""
    if workers == 1:
        yield from map(task, runs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(task, runs)


def work(run: list[Word], stages: list[str]) -> None:
    with quiet_loading():
        for stage in stages:
            STAGES[stage](run)


STAGES = {"teach": teach, "judge": judge}


def is_for_choosing(seeds: list[int]) -> bool:
    return max(seeds) >= CHOSEN_BY


def report(seeds: list[int]) -> None:
    """Write the results and their table: `truth.json` and the README's, or `tried.json` and this folder's."""
    everything = content(known_results(seeds))
    results = everything.pop("results")
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in everything.items()]
    rows = ",\n".join(f"  {json.dumps(result)}" for result in results)
    text = "{\n" + ",\n".join(lines) + ',\n "results": [\n' + rows + "\n ]\n}\n"
    if is_for_choosing(seeds):
        write_whole(PATH.with_name("tried.json"), text)
        write_table("tried", rows_of(everything), PATH.with_name("README.md"))
    else:
        write_whole(PATH, text)
        write_table("truth", section(everything))


if __name__ == "__main__":
    main()
