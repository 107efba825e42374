"""X/Y grids: pictures that differ in one or two settings, drawn, saved, reopened and drawn again."""

import io
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from ..common.sheets import GAP, INK, Described, described, image_grid
from ..concept.concept import Concept, settings_in_words
from ..concept.embedding import saved_steps
from .grid_plan import Axis, GridPlan
from .pipeline import draw, own_settings, pipeline_as_then, word_of
from .png import Picture, read_png, save_picture, write_png

_CHUNK = "grid"
Given = tuple[str, Iterable[Any]]


@dataclass(frozen=True)
class Sheet:
    """A sheet, the pictures on it row by row, and what it was drawn with.

    The last line of a notebook's cell shows it.
    """

    name: str
    image: Described = field(repr=False)
    pictures: list[Picture] = field(repr=False)
    plan: GridPlan = field(repr=False)

    def save(self, concept: Concept) -> Path:
        """Save the sheet as `grids/<name>.png`, its pictures with their settings in `grids/<name>/`.

        The sheet's file holds its plan: `reopen` reads it, `redraw` draws it again.
        """
        folder = concept.grids_folder / self.name
        for picture in self.pictures:
            save_picture(picture, folder)
        return write_png(self.image, folder.with_suffix(".png"), {_CHUNK: self.plan.model_dump_json()})

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """IPython's hook: the sheet with its text."""
        return self.image._repr_mimebundle_()


def xy_grid(pipeline: Any, x: Given, y: Given | None = None, name: str | None = None, **settings) -> Sheet:
    """A column for each value of one setting, a row for each value of another.

        xy_grid(pipeline, x=("guidance", [2, 4, 8]), y=("seed", range(3)), prompt="a photo of a {}")

    Args:
        x: a setting and its values: `prompt`, `negative_prompt`, `seed`, `guidance`, `steps`, `scheduler`,
            `weight` (of the word), `training_step` (None: the result) or `word` (what stands in its place).
        y: the same for the rows; None: one row.
        name: of the file that `Sheet.save` writes.
        settings: the same settings where no axis has them, also `size` and `batch_size`.
            `{}` in a prompt stands for the word.

    Raises:
        UserError: something of this can't be used; nothing was drawn then.
    """
    return draw_plan(pipeline, make_plan(pipeline, x, y, **settings), name)


def make_plan(pipeline: Any, x: Given, y: Given | None = None, **settings) -> GridPlan:
    """What `xy_grid` would draw. What is None is the model's own; as a training step, the result."""
    word = word_of(pipeline)
    own = own_settings(pipeline) | {"word": word and word.concept.placeholder_token}
    given = {key: value for key, value in settings.items() if value is not None or key == "training_step"}
    axes = {"x": Axis.make(*x), "y": Axis.make(*y) if y else None}
    with settings_in_words():
        return GridPlan(**(own | given | axes))


def draw_plan(
    pipeline: Any,
    plan: GridPlan,
    name: str | None = None,
    bar: Any = None,
    say: Callable[[str], Any] = print,
) -> Sheet:
    """Draw a grid; arguments and errors as for `xy_grid` and `generate`."""
    pictures = draw(pipeline, plan.cells(), plan.batch_size, bar, say)
    plan = plan.drawn_as(picture.settings for picture in pictures)
    return Sheet(name or plan.title, _laid_out(plan, pictures), pictures, plan)


def reopen(path: Path | str, content: bytes | None = None) -> GridPlan:
    """What a saved sheet was drawn with; arguments and errors as for `read_png`."""
    return read_png(path, _CHUNK, GridPlan, content)


def saved_sheets(concept: Concept) -> list[Path]:
    """The files that `Sheet.save` wrote, the newest first."""
    sheets = [path for path in concept.grids_folder.rglob("*.png") if path.with_suffix("").is_dir()]
    return sorted(sheets, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def redraw(path: Path | str, pipeline: Any = None) -> Sheet:
    """Draw a saved sheet again from what its PNG file holds; on the same CPU, bit for bit.

    As `remake`: a `UserError` where it holds no grid, or the word has been learned anew since.
    """
    plan = reopen(path)
    pipeline = pipeline_as_then(path, plan.hashes, pipeline)
    present = word_of(pipeline).concept.placeholder_token
    return draw_plan(pipeline, plan.with_word(present), Path(path).stem)


def _laid_out(plan: GridPlan, pictures: Sequence[Picture]) -> Described:
    rows, columns = plan.edges
    sheet = image_grid([picture.image for picture in pictures], len(columns))
    if any((*rows, *columns)):
        sheet = with_labels(sheet, rows, columns)
    places = zip((plan.x, plan.y), ("columns", "rows"), strict=True)
    varied = [(axis.name, place) for axis, place in places if axis and len(axis.values) > 1]
    axes = [f"{name.replace('_', ' ')} in {place}" for name, place in varied]
    differ = f" that differ by {' and '.join(axes)}" if axes else ""
    prompt = pictures[0].settings.prompt
    return described(sheet, f"{len(pictures)} pictures{differ}, for the prompt “{prompt}”")


# Labels at the edges of a sheet of pictures, drawn by matplotlib.
_DPI = 100
_POINTS = 9
_LETTER = 8  # pixels, about
_BESIDE = 16  # letters in a line of a row's label


def with_labels(
    body: Image.Image, rows: Sequence[str], columns: Sequence[str], points: float = _POINTS
) -> Image.Image:
    """Put labels above the columns and at the left of the rows, each wrapped to its place.

    Args:
        body: what `image_grid` laid out, `len(columns)` pictures wide and `len(rows)` high.
        points: size of the letters.
    """
    figure = Figure(figsize=(body.width / _DPI, body.height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(body, interpolation="none", aspect="auto")
    axes.set_frame_on(False)
    axes.tick_params(length=0, pad=6, labelsize=points, labelcolor=INK)
    axes.tick_params(top=True, labeltop=True, labelbottom=False)
    width = int(body.width / len(columns) / _LETTER * _POINTS / points)
    # Dollar signs in a prompt are no formulas.
    axes.set_xticks(*_ticks(columns, body.width, width), parse_math=False)
    axes.set_yticks(*_ticks(rows, body.height, _BESIDE), parse_math=False)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # an emoji in a prompt is a box then
        figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.02, transparent=True)
    return Image.open(drawn)


def _ticks(labels: Sequence[str], length: int, letters: int) -> tuple[list[float], list[str]]:
    """The middle of each picture along a side of the sheet, and its label in lines of so many letters."""
    step = (length + GAP) / len(labels)
    middles = [index * step + (step - GAP) / 2 for index in range(len(labels))]
    return middles, [textwrap.fill(label, max(letters, 6)) for label in labels]


def a_few_steps(concept: Concept, most: int = 5) -> list[int]:
    """At most `most` of the kept training steps, spread evenly from the first to the last."""
    steps = saved_steps(concept)
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]
