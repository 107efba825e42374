"""Contact sheets: many pictures as one, with captions, made with Pillow."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont


class Described(Image.Image):
    """A Pillow picture that a notebook shows together with its text.

    JupyterLab reads the text from an `<img>` of HTML alone, nbconvert from the metadata of the bare
    picture, a terminal from `text/plain`: it is given in each of these forms.

    Attributes:
        alt: what the picture shows, in words.
    """

    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """IPython's hook: the picture in each form, and what is to be known about them."""
        packed = io.BytesIO()
        self.save(packed, format="PNG")
        return picture_bundle(packed.getvalue(), "image/png", self.alt)


def described(image: Image.Image, alt: str) -> Described:
    """The same pixels, with a text."""
    picture = Described()
    picture.__setstate__(image.__getstate__())
    picture.alt = alt
    return picture


def picture_bundle(content: bytes, mime: str, alt: str) -> tuple[dict, dict]:
    """Data and metadata of a display, as `_repr_mimebundle_` returns them.

    Args:
        content: the picture's file.
        mime: its kind, for example `image/png`.
    """
    data = base64.b64encode(content).decode()
    shown = f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{data}">'
    return {"text/html": shown, mime: data, "text/plain": alt}, {mime: {"alt": alt}}


# Figures in the series' own manner: `series.mplstyle`, and a text for each.
STYLE = Path(__file__).with_name("series.mplstyle")


def new_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = (6, 2.5)) -> list[Axes]:
    """Axes of a new figure, row by row, in the series' style. Nothing global is changed.

    Args:
        size: of the whole figure, in inches.
    """
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return list(figure.subplots(rows, columns, squeeze=False).flat)


def finish(axes: Axes, alt: str) -> Described:
    """The figure that `axes` belongs to, as a picture.

    Args:
        alt: what it shows, in words.
    """
    drawn = io.BytesIO()
    with matplotlib.style.context(STYLE):
        axes.figure.savefig(drawn, format="png")
    return described(Image.open(drawn), alt)


GAP = 4
_LINE = 16


def image_grid(
    images: Sequence[Image.Image],
    columns: int,
    captions: Sequence[str] | None = None,
    cell: int | None = None,
    alt: str | None = None,
) -> Described:
    """Lay pictures out row by row on white.

    Args:
        images: RGB pictures, any sizes; each is fitted into a square cell.
        columns: pictures in a row.
        captions: a line under each picture, cut where it is wider than the cell.
        cell: side of a cell in pixels; the first picture's longer side if None.
        alt: what the sheet shows, in words; its captions if None.

    Returns:
        One RGB picture of `columns` x ceil(len(images) / columns) cells.
    """
    if not images:
        raise ValueError("there are no pictures to lay out")
    cell = cell or max(images[0].size)
    line = _LINE if captions else 0
    rows = -(-len(images) // columns)
    step_x, step_y = cell + GAP, cell + line + GAP
    sheet = Image.new("RGB", (columns * step_x - GAP, rows * step_y - GAP), "white")
    for index, image in enumerate(images):
        left, top = index % columns * step_x, index // columns * step_y
        fitted = _fit(image, cell)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        if captions:
            _write(sheet, captions[index], left, top + cell, cell)
    return described(sheet, alt or _in_words(len(images), columns, captions))


def _in_words(count: int, columns: int, captions: Sequence[str] | None) -> str:
    counted = "One picture" if count == 1 else f"{count} pictures, {min(columns, count)} in a row"
    return f"{counted}: {', '.join(captions)}." if captions else f"{counted}."


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # An enlarged miniature picture keeps its pixels sharp at whole multiples.
    sharp = scale >= 2 and scale == int(scale)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def _write(sheet: Image.Image, text: str, left: int, top: int, width: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    draw.text((left + width / 2, top + 2), text, fill="#333333", font=font, anchor="ma")
