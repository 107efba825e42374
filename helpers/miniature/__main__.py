"""`python -m helpers.miniature build | report | eye | grooty`, each with `--help`."""

import argparse
import json
import sys
from pathlib import Path

from ..common.errors import UserError
from ..common.files import replaced
from ..common.places import data_folder, miniature_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="helpers.miniature", description="The miniature Stable Diffusion's recipe."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make data/miniature from nothing; goes on where it was killed")
    build.add_argument("--share", type=float, default=1.0, help="of the pictures: 0.002 to try it out")
    build.add_argument("--into", type=Path, help="a folder for all that is made, instead of data/ and build/")
    commands.add_parser("report", help="measure it, write report.json and the model card")
    commands.add_parser("eye", help="draw the 100 pictures that are to be labelled by eye")
    commands.add_parser("grooty", help="draw the five example pictures")
    given = parser.parse_args()
    if given.command == "build" and given.share != 1 and not given.into:
        parser.error("with --share name a folder, --into: the miniature that ships must stay")
    try:
        _COMMANDS[given.command](given)
    except UserError as error:
        sys.exit(str(error))


def _build(given: argparse.Namespace) -> None:
    from .build import RECIPE, build

    recipe = RECIPE if given.share == 1 else RECIPE.at(given.share)
    print(f"The miniature lies in {build(recipe, given.into, given.into and given.into / 'build')}.")


def _report(given: argparse.Namespace) -> None:
    from .build import RECIPE, work_folder
    from .report import write_report

    with replaced(miniature_folder(), work_folder()) as folder:
        report = write_report(folder, RECIPE.captions, RECIPE.captions_with_names, RECIPE.fresh)
    print(json.dumps(report, indent=2), f"\nThe model card is {miniature_folder() / 'README.md'}.")


def _eye(given: argparse.Namespace) -> None:
    import torch

    from ..model.base_model import load_pipeline
    from .report import write_pictures

    pipeline = load_pipeline("miniature", dtype=torch.float32, device="cpu")
    print(f"Label {write_pictures(pipeline, miniature_folder())}: see helpers/miniature/report.py.")


def _grooty(given: argparse.Namespace) -> None:
    from .drawing import write_examples

    write_examples(data_folder() / "grooty")


_COMMANDS = {"build": _build, "report": _report, "eye": _eye, "grooty": _grooty}

if __name__ == "__main__":
    main()
