"""What a page shows: pictures with a text for each, sheets of many, figures in one style, and tables."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

# Pictures and tables as HTML.


def packed(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    """The bytes of a picture's file; `how` goes to Pillow's `save`, for example `quality=85`."""
    content = io.BytesIO()
    image.save(content, format=format, **how)
    return content.getvalue()


def data_uri(content: bytes, mime: str) -> str:
    """A file as an address that holds all of it, for a page without files beside it.

    Args:
        mime: its kind, for example `image/png`.
    """
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def html_picture(content: bytes, mime: str, alt: str, style: str = "", title: str = "") -> str:
    """An `<img>` that holds its picture.

    Args:
        content: the picture's file.
        mime: its kind, for example `image/png`.
        alt: what it shows, in words: for a screen reader, and where it can't be shown.
        style: CSS of the tag.
        title: shown under the mouse.
    """
    given = {"title": title, "style": style}
    more = "".join(f' {name}="{html.escape(text)}"' for name, text in given.items() if text)
    return f'<img alt="{html.escape(alt)}"{more} src="{data_uri(content, mime)}">'


def html_table(rows: Iterable[Sequence[Any]], head: Sequence[str] = (), named_rows: bool = False) -> str:
    """A table whose cells are text, or HTML where they are an `IPython.display.HTML`.

    Args:
        head: titles of the columns; without them there is no such row.
        named_rows: the first cell of a row is its name (`<th scope="row">`).

    Returns:
        The `<table>`; nothing where there are no rows.
    """
    lines = [_html_row(row, named_rows) for row in rows]
    titles = "".join(f'<th scope="col" {_LEFT}>{html.escape(title)}</th>' for title in head)
    first = [f"<tr>{titles}</tr>"] if head else []
    return "\n".join(["<table>", *first, *lines, "</table>"]) if lines else ""


_LEFT = 'style="text-align:left;vertical-align:top;overflow-wrap:anywhere"'


def _html_row(row: Sequence[Any], named: bool) -> str:
    cells = [cell.data if isinstance(cell, HTML) else html.escape(str(cell)) for cell in row]
    first = f'<th scope="row" {_LEFT}>{cells.pop(0)}</th>' if named else ""
    return f"<tr>{first}{''.join(f'<td {_LEFT}>{cell}</td>' for cell in cells)}</tr>"


# A picture that knows in words what it shows.


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
        return picture_bundle(packed(self), "image/png", self.alt)


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
    shown = html_picture(content, mime, alt)
    return {"text/html": shown, mime: data, "text/plain": alt}, {mime: {"alt": alt}}


# Figures in the series' own style, each with a text.
_STYLE = Path(__file__).with_name("series.mplstyle")


def new_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = (6, 2.5)) -> list[Axes]:
    """Axes of a new figure, row by row, in the series' style. Nothing global is changed.

    Args:
        size: of the whole figure, in inches.
    """
    with matplotlib.style.context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return list(figure.subplots(rows, columns, squeeze=False).flat)


def finish(axes: Axes, alt: str) -> Described:
    """The figure that `axes` belongs to, as a picture.

    Args:
        alt: what it shows, in words.
    """
    drawn = io.BytesIO()
    with matplotlib.style.context(_STYLE):
        axes.figure.savefig(drawn, format="png")
    return described(Image.open(drawn), alt)


# Contact sheets: many pictures as one, with captions.
GAP = 4  # pixels between two pictures
_LINE = 16  # pixels of a caption


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
