"""What a page shows: pictures with alternative texts, contact sheets, figures in one style, and tables."""

import base64
import functools
import html
import io
import itertools
import re
import textwrap
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

_LINE_LENGTH = 100  # letters


def say(text: Any) -> None:
    """Print sentences, wrapped at words: JupyterLab would break a long line in the middle of a word."""
    for line in str(text).splitlines():
        print(textwrap.fill(line, _LINE_LENGTH, break_long_words=False, break_on_hyphens=False))


def counted(number: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


# Pictures and tables as HTML.


def packed(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    """A picture as the bytes of a file; `how` goes to Pillow's `save`, for example `quality=85`."""
    content = io.BytesIO()
    image.save(content, format=format, **how)
    return content.getvalue()


def data_uri(content: bytes, mime: str) -> str:
    """A file as a `data:` address; `mime` is its type, for example `image/png`."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def html_picture(content: bytes, mime: str, alt: str, style: str = "", title: str = "") -> str:
    """An `<img>` with its file inside (`data_uri`), an alternative text, CSS, and a text under the mouse."""
    given = {"title": title, "style": style}
    more = "".join(f' {name}="{html.escape(text)}"' for name, text in given.items() if text)
    return f'<img alt="{html.escape(alt)}"{more} src="{data_uri(content, mime)}">'


def html_table(rows: Iterable[Sequence[Any]], head: Sequence[str] = (), named_rows: bool = False) -> str:
    """A `<table>` whose cells are text, or an `IPython.display.HTML`; empty if there are no rows.

    A column of nothing but numbers, with or without a unit, is aligned right, any other left.

    Args:
        head: titles of the columns; empty: no such row.
        named_rows: the first cell of a row is its name (`<th scope="row">`).
    """
    rows = [tuple(row) for row in rows]
    sides = ["right" if all(map(_is_number, column)) else "left" for column in zip(*rows, strict=True)]
    lines = [_html_row(row, sides, ["th" if named_rows else "td"]) for row in rows]
    first = [_html_row(head, sides, ["th"] * len(head))] if head else []
    return "\n".join(["<table>", *first, *lines, "</table>"]) if lines else ""


@dataclass(frozen=True)
class Table:
    """A table in a notebook, and lines in a terminal, without the cells that are HTML."""

    rows: Sequence[Sequence[Any]]
    head: Sequence[str]
    empty: str  # the text to show if there are no rows

    def __repr__(self) -> str:
        texts = [[cell for cell in row if cell and not isinstance(cell, HTML)] for row in self.rows]
        return "\n".join(" | ".join(row) for row in texts) or self.empty

    def _repr_html_(self) -> str:
        return html_table(self.rows, self.head) or f"<p>{html.escape(self.empty)}</p>"


_NUMBER = re.compile(r"[-+]?[\d,.]+( ?(%|[kMG]i?B|bytes|s|minutes|px))?")


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, HTML) and bool(_NUMBER.fullmatch(str(cell)))


def _html_row(row: Sequence[Any], sides: Sequence[str], tags: Sequence[str]) -> str:
    """A row; `tags` are those of its first cells, the other cells are `td`."""
    cells = []
    for cell, side, tag in itertools.zip_longest(row, sides, tags, fillvalue="td"):
        scope = f' scope="{"col" if len(tags) > 1 else "row"}"' if tag == "th" else ""
        wrapping = "white-space:nowrap" if side == "right" and tag == "td" else "overflow-wrap:anywhere"
        style = f"text-align:{side};vertical-align:top;{wrapping}"
        shown = cell.data if isinstance(cell, HTML) else html.escape(str(cell))
        cells.append(f'<{tag}{scope} style="{style}">{shown}</{tag}>')
    return f"<tr>{''.join(cells)}</tr>"


# Pictures with alternative texts.
_WIDE = "max-width:100%;height:auto;cursor:zoom-in"
# Full screen: the only enlargement that needs no script, no style sheet and no second file on the page.
_ENLARGE = "document.fullscreenElement ? document.exitFullscreen() : this.requestFullscreen()"


class Described(Image.Image):
    """A Pillow picture with an alternative text, which a notebook shows with it."""

    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """IPython's hook: HTML, the only form of a picture that has an alternative text."""
        return {"text/html": self.as_html(), "text/plain": self.alt}, {}

    def as_html(self) -> str:
        """An `<img>` of a WebP, which is as small as a JPEG and may be transparent."""
        return _enlarging(packed(self, "WEBP", quality=82), self.alt)


def described(image: Image.Image, alt: str) -> Described:
    """The same pixels, with an alternative text."""
    picture = Described()
    picture.__setstate__(image.__getstate__())
    picture.alt = alt
    return picture


def _enlarging(webp: bytes, alt: str) -> str:
    """An `<img>` no wider than its page, which a click enlarges."""
    tag = html_picture(webp, "image/webp", alt, _WIDE, "Click to enlarge")
    return tag.replace("<img", f'<img onclick="{_ENLARGE}"', 1)


@dataclass(frozen=True)
class Animation:
    """Pictures in an endless loop: a WebP file with an alternative text."""

    content: bytes = field(repr=False)
    alt: str

    @classmethod
    def of(cls, frames: Sequence[Image.Image], seconds: Sequence[float], alt: str) -> "Animation":
        """Pictures of one size, each with its duration in seconds."""
        first, *others = frames
        times = [round(1000 * one) for one in seconds]
        how = {"save_all": True, "append_images": others, "duration": times, "loop": 0, "quality": 75}
        return cls(packed(first, "WEBP", **how), alt)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return {"text/html": _enlarging(self.content, self.alt), "text/plain": self.alt}, {}


# Figures in the series' own style, each with an alternative text.
_STYLE = ["default", Path(__file__).with_name("series.mplstyle")]  # whatever a person's own style is
one_figure = threading.Lock()  # at a time: a style's context sets global parameters until it ends


def new_figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = (6, 2.5)) -> list[Axes]:
    """Axes of a new figure of `size` inches, row by row, in the series' style. Nothing global is changed."""
    with one_figure, matplotlib.style.context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        return list(figure.subplots(rows, columns, squeeze=False).flat)


def finish(axes: Axes, alt: str) -> Described:
    """The figure of `axes` as a picture; `alt` says in words what it shows."""
    drawn = io.BytesIO()
    with one_figure, matplotlib.style.context(_STYLE):
        axes.figure.savefig(drawn, format="png")
    return described(Image.open(drawn), alt)


# Contact sheets: many pictures in one, with captions.
SIDE = 192  # pixels of a picture; five of them are as wide as a notebook's cell
GAP = 4  # pixels between two pictures
INK = "#808080"  # legible on a light page and on a dark one
_LETTERS = 13  # pixels
_LINE = 17  # pixels of a line of a caption
_MOST_LINES = 3


def image_grid(
    images: Sequence[Image.Image],
    columns: int,
    captions: Sequence[str] | None = None,
    cell: int = SIDE,
    alt: str | None = None,
) -> Described:
    """Lay out pictures of any size row by row on a transparent background, each fitted into a square.

    Args:
        captions: a text under each picture, wrapped at words, in three lines at most.
        cell: side of a square in pixels.
        alt: the alternative text; None: the captions.
    """
    if not images:
        raise ValueError("there are no pictures to lay out")
    wrapped = [_wrapped(caption, cell - 3 * GAP) for caption in captions or ()]
    below = _LINE * max(map(len, wrapped), default=0) + 4 * bool(wrapped)
    rows = -(-len(images) // columns)
    step_x, step_y = cell + GAP, cell + below + GAP
    sheet = Image.new("RGBA", (columns * step_x - GAP, rows * step_y - GAP))
    pen = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = index % columns * step_x, index // columns * step_y
        fitted = _fit(image, cell)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        for number, line in enumerate(wrapped[index] if captions else ()):
            place = (left + cell / 2, top + cell + 2 + number * _LINE)
            pen.text(place, line, fill=INK, font=_font(), anchor="ma")
    many = len(images) > 1
    said = f"{len(images)} pictures, {min(columns, len(images))} in a row" if many else "One picture"
    return described(sheet, alt or (f"{said}: {', '.join(captions)}." if captions else f"{said}."))


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Pixels that are meant to be seen, as in a close-up or in latents, stay sharp at whole multiples.
    sharp = scale >= 3 and scale == int(scale)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: it has more letters than Pillow's own, and draws spaces."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", _LETTERS)


def _wrapped(text: str, width: int) -> list[str]:
    """A caption's lines, none wider than `width` pixels; one that is too long ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], " ".join(lines[_MOST_LINES - 1 :])]
    return [_shortened(line, width) for line in lines]


def _shortened(line: str, width: int) -> str:
    while line and _font().getlength(line) > width:
        line = line[:-2].rstrip() + "…" if len(line) > 2 else ""
    return line
