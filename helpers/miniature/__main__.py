"""`python -m helpers.miniature build | report | eye | grooty`, each with `--help`."""

import argparse
import json
import sys
from pathlib import Path

import torch

from ..common.errors import UserError
from ..common.files import replaced
from ..common.places import data_folder, miniature_folder
from ..model.base_model import load_pipeline
from .build import build, work_folder
from .drawing import write_examples
from .report import write_pictures, write_report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="helpers.miniature", description="The miniature Stable Diffusion's recipe."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="make data/miniature, or resume a killed build")
    make.add_argument("--share", type=float, default=1.0, help="of the pictures: 0.002 to try it out")
    make.add_argument("--into", type=Path, help="a folder for all that is made, not data/ and build/")
    commands.add_parser("report", help="measure it, write report.json and the model card")
    commands.add_parser("eye", help="draw the 100 pictures that are to be labelled by eye")
    commands.add_parser("grooty", help="draw the five example pictures")
    given = parser.parse_args()
    if given.command == "build" and given.share != 1 and not given.into:
        parser.error("with --share name a folder, --into: the miniature that ships must stay")
    try:
        _run(given)
    except UserError as error:
        sys.exit(str(error))


def _run(given: argparse.Namespace) -> None:
    if given.command == "build":
        folder = build(given.share, given.into, given.into and given.into / "build")
        print(f"The miniature is in {folder}.")
    elif given.command == "report":
        with replaced(miniature_folder(), work_folder()) as folder:
            report = write_report(folder)
        print(json.dumps(report, indent=2), f"\nThe model card is {miniature_folder() / 'README.md'}.")
    elif given.command == "eye":
        pipeline = load_pipeline("miniature", dtype=torch.float32, device="cpu")
        print(f"Label {write_pictures(pipeline, miniature_folder())}: see helpers/miniature/report.py.")
    else:
        write_examples(data_folder() / "grooty")


if __name__ == "__main__":
    main()
