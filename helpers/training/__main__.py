"""`python -m helpers.training concepts/<name>`, or the same after `accelerate launch -m`."""

import argparse
import os
import sys
from pathlib import Path

from ..errors import UserError
from ..places import ROOT_VARIABLE
from . import train_many


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="helpers.training", description="Teach the words of concepts.")
    parser.add_argument("concepts", nargs="+", type=Path, help="folders with a concept.json, or names")
    parser.add_argument("--fresh", action="store_true", help="start over; the former run is renamed")
    given = parser.parse_args(arguments)
    if (given.concepts[0] / "concept.json").is_file():
        os.environ[ROOT_VARIABLE] = str(given.concepts[0].resolve().parent)
    try:
        outcomes = train_many([path.name for path in given.concepts], fresh=given.fresh)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if int(os.environ.get("RANK", 0)) == 0:
        print(*outcomes, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
