"""Labels at the edges of a sheet of pictures, drawn by matplotlib."""

import io
import textwrap
import warnings
from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image

from .grid import GAP

_DPI = 100
_POINTS = 8
_LETTER = 7  # pixels, about
_BESIDE = 18  # letters in a line of a row's label
_INK = "#333333"


def with_labels(body: Image.Image, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Put labels above the columns and at the left of the rows, each wrapped to its place.

    Args:
        body: what `image_grid` laid out, `len(columns)` pictures wide and `len(rows)` high.
    """
    figure = Figure(figsize=(body.width / _DPI, body.height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(body, interpolation="none", aspect="auto")
    axes.set_frame_on(False)
    axes.tick_params(length=0, pad=6, labelsize=_POINTS, labelcolor=_INK)
    axes.tick_params(top=True, labeltop=True, labelbottom=False)
    width = int(body.width / len(columns) / _LETTER)
    # Dollar signs in a prompt are no formulas.
    axes.set_xticks(_centres(body.width, len(columns)), _wrapped(columns, width), parse_math=False)
    axes.set_yticks(_centres(body.height, len(rows)), _wrapped(rows, _BESIDE), parse_math=False)
    return _drawn(figure)


def _centres(length: int, count: int) -> list[float]:
    step = (length + GAP) / count
    return [index * step + (step - GAP) / 2 for index in range(count)]


def _wrapped(labels: Sequence[str], letters: int) -> list[str]:
    return ["\n".join(textwrap.wrap(label, max(letters, 6))) for label in labels]


def _drawn(figure: Figure) -> Image.Image:
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # an emoji in a prompt is a box then
        figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.05)
    return Image.open(drawn).convert("RGB")
