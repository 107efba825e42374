"""`python -m helpers.miniature build | sit PICTURES | polish PICTURES | report | eye | grooty`."""

import argparse
import json

from ..places import data_folder, miniature_folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="helpers.miniature", description="The miniature Stable Diffusion's recipe."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make data/miniature from nothing; a killed run goes on where it was")
    sit = commands.add_parser("sit", help="train the shipped weights on")
    sit.add_argument("pictures", type=int, help="for how many more pictures")
    polish = commands.add_parser("polish", help="train the shipped decoder on")
    polish.add_argument("pictures", type=int, help="on how many more pictures")
    commands.add_parser("report", help="measure it, write report.json and the model card")
    commands.add_parser("eye", help="draw the 100 pictures that are to be labelled by eye")
    commands.add_parser("grooty", help="draw the five example pictures")
    arguments = parser.parse_args()
    {
        "build": _build,
        "sit": lambda: _sit(arguments.pictures),
        "polish": lambda: _polish(arguments.pictures),
        "report": _report,
        "eye": _eye,
        "grooty": _grooty,
    }[arguments.command]()


def _build() -> None:
    from .build import build

    print(f"The miniature lies in {build()}.")


def _sit(pictures: int) -> None:
    from .build import sit_again

    print(f"The miniature lies in {sit_again(pictures)}.")


def _polish(pictures: int) -> None:
    from .build import polish_again

    print(f"The miniature lies in {polish_again(pictures)}.")


def _report() -> None:
    from .card import write_card
    from .report import measure

    report, asked, images = measure()
    training = json.loads((miniature_folder() / "training.json").read_text())
    path = write_card(miniature_folder(), report, training, asked, images)
    print(json.dumps(report, indent=1), f"\nThe model card is {path}.")


def _eye() -> None:
    import torch

    from ..base_model import load_pipeline
    from .by_eye import write_pictures

    pipeline = load_pipeline("miniature", dtype=torch.float32, device="cpu")
    print(f"Label {write_pictures(pipeline, miniature_folder())}: see helpers/miniature/by_eye.py.")


def _grooty() -> None:
    from .grooty import write_examples

    write_examples(data_folder() / "grooty")


if __name__ == "__main__":
    main()
