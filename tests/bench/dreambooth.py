"""`python -m tests.bench.dreambooth`: Dreambooth and a word together, on toys that nobody tuned to.

Each toy of a population gets a word, and a model that knows the next toy as `sks`. The judge then reads
what that model draws: for either by itself, for the class, and for both in one prompt as their weights
move. What was finished is not done again; the rows are those of a table.
"""

import argparse
import os

from helpers.common.places import ROOT_VARIABLE
from helpers.concept.concept import Concept
from helpers.inference.examples import examples_for
from helpers.inference.pipeline import generate, pipeline_with_word
from helpers.miniature.judge import (
    Judge,
    evaluation_surroundings,
    fraction_shown,
    read_subject,
    score_readings,
)
from helpers.miniature.world import Toy
from helpers.model.base_model import MINIATURE, load_pipeline
from helpers.model.machine import quiet_loading
from helpers.training.describe import describe_pictures
from helpers.training.dreambooth import dreambooth_concept, dreambooth_folder, subject, train_dreambooth

from .population import Sitter, population
from .setting import INITIALIZER
from .truth import Word, folder, make_concept, teach

PICTURES = 32  # of each prompt
WEIGHTS = ((1.3, 0.7), (1.0, 1.0), (0.7, 1.3))  # of the word and of the rare word


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.dreambooth", description=__doc__.splitlines()[0])
    parser.add_argument("--toys", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="by which toys are drawn")
    given = parser.parse_args(arguments)
    folder().mkdir(parents=True, exist_ok=True)
    os.environ[ROOT_VARIABLE] = str(folder() / "concepts")
    sitters = population(given.toys, given.seed, "easy")
    table = ["| word, `sks` | said | the word's toy | the sks toy | prompt |", "|" + " --- |" * 5]
    for first in range(given.toys):
        second = (first + 1) % given.toys
        with quiet_loading():
            word, thing = teach_both(Word("ours", "easy", given.seed, first), sitters[second])
            seen = rows(word, thing, [sitters[first].toy, sitters[second].toy])
        table += [f"| {first}, {second} | {' | '.join(row)} |" for row in seen]
    print("\n".join(table))


def teach_both(taught: Word, sitter: Sitter) -> tuple[Concept, Concept]:
    """A toy's word, and the concept of another toy that a model knows as `sks`."""
    teach([taught])
    word = Concept.load(taught.name)
    make_concept(f"{taught.name}-beside", sitter)
    thing = dreambooth_concept(f"{taught.name}-beside", word, "sks", INITIALIZER)
    describe_pictures(thing)
    train_dreambooth(thing)
    return word, thing


def rows(word: Concept, thing: Concept, toys: list[Toy]) -> list[tuple[str, ...]]:
    """What was said, then what the judge sees of either toy: of one alone, identity; of both, shares."""
    pipeline = pipeline_with_word(word, base_model=str(dreambooth_folder(thing) / "model"))
    pipeline.set_progress_bar_config(disable=True)
    judge, guidance, table = Judge.load(), examples_for(word).guidance, []
    wanted = [evaluation_surroundings(toy, PICTURES) for toy in toys]
    unchanged = load_pipeline(MINIATURE)
    unchanged.set_progress_bar_config(disable=True)
    for name, said, drawn_by in (
        ("the word", word.placeholder_token, pipeline),
        (f"`{subject(thing)}`", subject(thing), pipeline),
        (f"`{INITIALIZER}`", INITIALIZER, pipeline),
        (f"`{INITIALIZER}`, in the unchanged model", INITIALIZER, unchanged),
    ):
        readings = read_subject(drawn_by, said, wanted[0], judge, guidance)
        scores = [score_readings(readings, one) for one in wanted]
        seen = [scores[0]["identity"], scores[1]["identity"], scores[0]["prompt"]]
        table.append((name, *(f"{share:.2f}" for share in seen)))
    for first, second in WEIGHTS:
        prompt = f"a photo of a ({word.placeholder_token}:{first}) and ({subject(thing)}:{second})"
        drawn = generate(pipeline, prompt, list(range(PICTURES)), guidance=guidance)
        readings = judge.read([picture.image for picture in drawn])
        seen = [fraction_shown(*toys, readings), fraction_shown(*toys[::-1], readings)]
        table.append((f"both, {first} and {second}", *(f"{share:.2f}" for share in seen), " "))
    return table


if __name__ == "__main__":
    main()
