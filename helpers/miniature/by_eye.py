"""The judge against a person: 100 generated pictures, labelled by looking at them.

`data/miniature/by_eye/pictures.png` holds the pictures, ten rows of ten, and `labels.json` a line for
each: what a person saw, by attribute; an attribute that could not be made out is left out.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .drawing import PICTURE_SIDE
from .judge import Judge
from .report import draw, fresh_captions

COUNT, _COLUMNS = 100, 10


def write_pictures(pipeline, folder: Path) -> Path:
    """Draw 100 pictures for fresh captions, to be labelled; lossless, without gaps."""
    asked = fresh_captions(COUNT, seed=100)
    images = draw(pipeline, [one.caption for one in asked], first_seed=5_000)
    sheet = Image.new("RGB", (_COLUMNS * PICTURE_SIDE, COUNT // _COLUMNS * PICTURE_SIDE))
    for number, image in enumerate(images):
        sheet.paste(image, (number % _COLUMNS * PICTURE_SIDE, number // _COLUMNS * PICTURE_SIDE))
    path = folder / "by_eye" / "pictures.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return path


def read_pictures(folder: Path) -> list[Image.Image]:
    """The 100 pictures, in the order of the labels."""
    sheet = Image.open(folder / "by_eye" / "pictures.png").convert("RGB")
    corners = [divmod(number, _COLUMNS) for number in range(COUNT)]
    boxes = [(column * PICTURE_SIDE, row * PICTURE_SIDE) for row, column in corners]
    return [sheet.crop((x, y, x + PICTURE_SIDE, y + PICTURE_SIDE)) for x, y in boxes]


def has_labels(folder: Path) -> bool:
    """Whether the folder has labels by eye: those of a miniature built from nothing are yet to be made."""
    return (folder / "by_eye" / "labels.json").exists()


def agreement_with_eye(judge: Judge, folder: Path) -> dict[str, float]:
    """For each attribute the share of pictures of which the judge says what the person saw."""
    labels = json.loads((folder / "by_eye" / "labels.json").read_text())
    readings = judge.read(read_pictures(folder))
    agreed: dict[str, list[bool]] = {}
    for seen, reading in zip(labels, readings, strict=True):
        for attribute, value in seen.items():
            agreed.setdefault(attribute, []).append(reading.values[attribute] == value)
    return {attribute: float(np.mean(same)) for attribute, same in agreed.items()}
