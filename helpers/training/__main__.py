"""`python -m helpers.training concepts/<name>`, or the same after `accelerate launch -m`."""

import argparse
import os
import sys
from pathlib import Path

from ..common.errors import UserError
from ..common.places import ROOT_VARIABLE
from ..concept.concept import Concept
from .evaluate import try_initializers
from .train import train_many


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="helpers.training", description="Teach the words of concepts.")
    parser.add_argument("concepts", nargs="+", type=Path, help="folders with a concept.json, or names")
    parser.add_argument("--fresh", action="store_true", help="start over; the previous run is renamed")
    parser.add_argument(
        "--try",
        nargs="*",
        metavar="WORDS",
        dest="words",
        help="compare initializers instead, best first; without words those that mean things to the model",
    )
    given = parser.parse_args(arguments)
    if (given.concepts[0] / "concept.json").is_file():
        os.environ[ROOT_VARIABLE] = str(given.concepts[0].resolve().parent)
    names = [path.name for path in given.concepts]
    try:
        if given.words is not None:
            print(*(_tried(Concept.load(name), given.words) for name in names), sep="\n")
            return 0
        summaries = train_many(names, fresh=given.fresh)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", 0)) == 0:
        print(*summaries, sep="\n")
    return 0


def _tried(concept: Concept, words: list[str]) -> str:
    ranked = try_initializers(concept, words)
    lines = [f"{candidate.fixed_loss:.4f} {candidate.words}" for candidate in ranked]
    best = ranked[0].words
    advice = "is the best as it is" if best == concept.initializer_token else f"→ better: “{best}”"
    return "\n".join([*lines, f"{concept.name}: “{concept.initializer_token}” {advice}."])


if __name__ == "__main__":
    sys.exit(main())
