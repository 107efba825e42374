"""The picture that stands for a concept: drawn with its word if there is one, else one it learns from."""

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .concept import Concept
from .download import is_picture_file
from .errors import UserError
from .pictures import open_picture
from .png_settings import read_settings

_SIDE = 192  # pixels at most; of the miniature's smaller pictures each pixel is kept


@dataclass(frozen=True)
class Cover:
    """A small picture, and what it shows in words."""

    image: Image.Image
    alt: str

    def as_html(self, side: int) -> str:
        """An `<img>` of at most `side` pixels."""
        packed = io.BytesIO()
        self.image.save(packed, format="PNG")
        data = base64.b64encode(packed.getvalue()).decode()
        style = f"width:{side}px;height:{side}px;object-fit:contain"
        return f'<img style="{style}" alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}">'


def cover(folder: Path, concept: Concept | None) -> Cover | None:
    """The newest picture drawn with the word, else the last sample of the training, else the first picture.

    Args:
        concept: its settings, if it has any. A picture that can't be read is passed over.
    """
    return next(_candidates(folder, concept), None)


def _candidates(folder: Path, concept: Concept | None) -> Iterator[Cover]:
    if concept and concept.embeds_path.is_file():
        yield from _drawn(folder / "grids", concept)
        yield from _samples(folder / "training" / "samples", concept)
    for path in sorted(filter(is_picture_file, (folder / "images").glob("*"))):
        yield from _opened(path, f"{path.name}, which the word is to be learned from")


def _drawn(grids: Path, concept: Concept) -> Iterator[Cover]:
    for path in sorted(grids.rglob("*.png"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            prompt = read_settings(path).prompt
        except UserError:
            continue  # a sheet, or a picture from elsewhere
        if concept.placeholder_token in prompt:
            yield from _opened(path, f"drawn with the word: {prompt}")


def _samples(samples: Path, concept: Concept) -> Iterator[Cover]:
    for path in sorted(samples.glob("*.png"), reverse=True):
        alt = f"drawn with {concept.placeholder_token} at step {path.stem}"
        yield from _opened(path, alt, first_square=True)


def _opened(path: Path, alt: str, first_square: bool = False) -> Iterator[Cover]:
    """Nothing where the file is damaged: what it belongs to says so."""
    try:
        image = open_picture(path.read_bytes())
    except (UserError, OSError):
        return
    if first_square:  # of a strip
        image = image.crop((0, 0, image.height, image.height))
    image.thumbnail((_SIDE, _SIDE))
    yield Cover(image, alt)
