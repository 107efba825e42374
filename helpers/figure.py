"""Figures in the series' own manner: `series.mplstyle`, and a text for each."""

import io
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from .described import Described, described

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
