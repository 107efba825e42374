"""`python -m helpers.miniature build | sit | polish | judge | report | eye | grooty`, each with `--help`."""

import argparse
import json
import sys
from pathlib import Path

from ..common.errors import UserError
from ..common.places import data_folder, miniature_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="helpers.miniature", description="The miniature Stable Diffusion's recipe."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("build", help="make data/miniature from nothing; goes on where it was killed")
    whole.add_argument("--share", type=float, default=1.0, help="of the pictures: 0.002 to try it out")
    whole.add_argument("--into", type=Path, help="a folder for all that is made, instead of data/ and build/")
    sit = commands.add_parser("sit", help="train the shipped weights on")
    sit.add_argument("pictures", type=int, help="for how many more pictures")
    polish = commands.add_parser("polish", help="train the shipped decoder on")
    polish.add_argument("pictures", type=int, help="on how many more pictures")
    judge = commands.add_parser("judge", help="train the shipped judge on")
    judge.add_argument("pictures", type=int, help="on how many more pictures")
    commands.add_parser("report", help="measure it, write report.json and the model card")
    commands.add_parser("eye", help="draw the 100 pictures that are to be labelled by eye")
    commands.add_parser("grooty", help="draw the five example pictures")
    arguments = parser.parse_args()
    if arguments.command == "build" and arguments.share != 1 and not arguments.into:
        parser.error("with --share name a folder, --into: the miniature that ships must stay")
    run = {
        "build": lambda: _build(arguments.share, arguments.into),
        "sit": lambda: _sit(arguments.pictures),
        "polish": lambda: _polish(arguments.pictures),
        "judge": lambda: _judge(arguments.pictures),
        "report": _report,
        "eye": _eye,
        "grooty": _grooty,
    }[arguments.command]
    try:
        run()
    except UserError as error:
        sys.exit(str(error))


def _build(share: float, into: Path | None) -> None:
    from .build import RECIPE, build

    recipe = RECIPE if share == 1 else RECIPE.at(share)
    print(f"The miniature lies in {build(recipe, into, into and into / 'build')}.")


def _sit(pictures: int) -> None:
    from .build import sit_again

    print(f"The miniature lies in {sit_again(pictures)}.")


def _polish(pictures: int) -> None:
    from .build import polish_again

    print(f"The miniature lies in {polish_again(pictures)}.")


def _judge(pictures: int) -> None:
    from .build import judge_again

    print(f"The judge lies in {judge_again(pictures)}.")


def _report() -> None:
    from ..common.files import replaced
    from .build import RECIPE, work_folder
    from .report import write_report

    with replaced(miniature_folder(), work_folder()) as folder:
        report = write_report(folder, RECIPE.captions, RECIPE.fresh)
    print(json.dumps(report, indent=1), f"\nThe model card is {miniature_folder() / 'README.md'}.")


def _eye() -> None:
    import torch

    from ..model.base_model import load_pipeline
    from .report import write_pictures

    pipeline = load_pipeline("miniature", dtype=torch.float32, device="cpu")
    print(f"Label {write_pictures(pipeline, miniature_folder())}: see helpers/miniature/by_eye.py.")


def _grooty() -> None:
    from .drawing import write_examples

    write_examples(data_folder() / "grooty")


if __name__ == "__main__":
    main()
