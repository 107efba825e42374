"""X/Y grids: pictures that differ in one or two settings; planned, drawn, saved, reopened, redrawn."""

import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ..common.errors import UserError
from ..common.sheets import GAP, INK, Described, counted, described, image_grid, one_figure
from ..concept.concept import Concept, settings_in_words
from ..concept.embedding import saved_steps
from .pipeline import draw, pipeline_for, pipeline_settings, word_of
from .png import DrawingSettings, Picture, PictureSettings, read_png, save_picture, write_png
from .prompt_weights import MOST as MOST_WEIGHT
from .prompt_weights import weighted

AxisName = Literal[
    "prompt", "negative_prompt", "seed", "guidance", "steps", "scheduler", "weight", "training_step", "word"
]
RESULT = "result"  # how the training's end is typed among its steps
MOST = 400
_WHOLE = ("seed", "steps", "training_step")
_LINES = ("prompt", "negative_prompt")
_LISTED = ("scheduler", "word")
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


class GridSettings(DrawingSettings):
    """The settings that an axis can vary: those of pictures, the word at `{}`, and its weight."""

    weight: float = Field(1.0, ge=0, le=MOST_WEIGHT)
    word: str | None = None


class Axis(BaseModel):
    """A setting and its values, from left to right or from top to bottom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AxisName
    values: tuple[int | float | str | None, ...]

    @classmethod
    def make(cls, name: str, values: Iterable[Any]) -> Self:
        """Check a name and values; a `UserError` names what can't be used."""
        if name not in get_args(AxisName):
            raise UserError(
                f"There is no axis “{name}”: choose one of these: {', '.join(get_args(AxisName))}."
            )
        values = [values] if isinstance(values, str) else list(values)
        if not values:
            raise UserError(f"The axis {name} has no values: give at least one.")
        return cls(name=name, values=tuple(_read(name, value) for value in values))

    @classmethod
    def typed(cls, name: str, text: str) -> Self:
        """Read values as typed: prompts one a line, others separated by commas; `0-4` is a range."""
        return cls.make(name, _split(name, text))

    @property
    def text(self) -> str:
        """The values as they would be typed."""
        return ("\n" if self.name in _LINES else ", ").join(map(_written, self.values))

    @property
    def labels(self) -> list[str]:
        """A short label for each value, for the edge of a sheet."""
        write = _LABELS.get(self.name, lambda value: f"{self.name} {_written(value)}")
        return [write(value) for value in self.values]


class GridPlan(GridSettings):
    """Everything needed to draw a grid again, given the model and the word.

    `{}` in a prompt stands for `word`: the learned word, unless an axis puts another there. `columns` wraps
    a grid of one axis. `rows_hashes` has the hashes of the word's rows, by training step.
    """

    model_config = ConfigDict(extra="forbid")

    batch_size: int | None = Field(None, ge=0)
    x: Axis
    y: Axis | None = None
    columns: int | None = Field(None, ge=0)
    rows_hashes: dict[str, str] = Field({}, validation_alias=AliasChoices("rows_hashes", "rows"))
    concept: Any = Field(None, exclude=True, repr=False)  # in older files, as `rows` is: its name

    @property
    def axes(self) -> list[Axis]:
        return [self.x] if self.y is None else [self.x, self.y]

    @property
    def title(self) -> str:
        """Which settings differ, as a file name."""
        return "_by_".join(axis.name for axis in reversed(self.axes))

    @property
    def edges(self) -> tuple[list[str], list[str]]:
        """The labels of rows and of columns; empty where a grid is wrapped."""
        if self.columns and not self.y:
            return [""] * -(-len(self.x.values) // self.columns), [""] * self.columns
        return self.y.labels if self.y else [""], self.x.labels

    @property
    def labels(self) -> list[str]:
        """A label for each picture, row by row."""
        beside = self.y.labels if self.y else [""]
        return [", ".join(filter(None, (down, across))) for down in beside for across in self.x.labels]

    @property
    def hashes(self) -> dict[int | None, str]:
        """`rows_hashes` by the training step as pictures have it: None is the result."""
        return {None if step == RESULT else int(step): hash_ for step, hash_ in self.rows_hashes.items()}

    def with_word(self, word: str) -> Self:
        """The same grid for its word's present name."""
        if self.word is None:
            return self
        alone = rf"(?<!\w){re.escape(self.word)}(?!\w)"

        def renamed(value: Any) -> Any:
            is_text = isinstance(value, str)
            return re.sub(alone, lambda _: word, value, flags=re.IGNORECASE) if is_text else value

        update = {name: renamed(getattr(self, name)) for name in ("word", *_LINES)}
        for side, axis in zip("xy", self.axes, strict=False):
            update[side] = axis.model_copy(update={"values": tuple(map(renamed, axis.values))})
        return self.model_copy(update=update)

    def cells(self) -> list[PictureSettings]:
        """The settings of each picture, row by row; a `UserError` where the axes can't be drawn."""
        if self.y and self.x.name == self.y.name:
            raise UserError(f"Both axes are {self.x.name}: choose another for one of them.")
        count = math.prod(len(axis.values) for axis in self.axes)
        if count > MOST:
            raise UserError(
                f"This grid would have {count:,} pictures: give fewer values, {MOST} pictures at most."
            )
        choices = [[(axis.name, value) for value in axis.values] for axis in self.axes[::-1]]
        return [self._cell(dict(varied)) for varied in itertools.product(*choices)]

    def _cell(self, varied: Mapping[str, Any]) -> PictureSettings:
        own = self.model_copy(update=varied)
        settings = {name: getattr(own, name) for name in DrawingSettings.model_fields}
        settings["prompt"] = self._filled(own.prompt, own.word, own.weight)
        settings["negative_prompt"] = own.negative_prompt.replace("{}", self.word or "{}")
        return PictureSettings(**settings)

    def _filled(self, prompt: str, word: str | None, weight: float) -> str:
        # Not as part of a longer word, such as `<g>_s` beside `<g>`.
        alone = rf"{re.escape(self.word or '')}(?![_\d])"
        place = re.sub(alone, "{}", prompt, flags=re.IGNORECASE) if self.word else prompt
        if "{}" not in place and (word, weight) != (self.word, 1):
            raise UserError(
                f"The prompt “{prompt}” has no {self.word or 'learned word'}: put it in, so that there is "
                "something to weigh or to replace."
            )
        return place.replace("{}", weighted(word, weight)) if word else prompt


def _read(name: str, value: Any) -> Any:
    """A value, checked and in its setting's type; numbers may be text."""
    if isinstance(value, str):
        value = value.strip()
    if name == "training_step" and value == RESULT:
        return None
    with settings_in_words():
        return getattr(GridSettings(**{name: value}), name)


def _split(name: str, text: str) -> list[str]:
    if name in _LINES:
        lines = text.split("\n")
        # An empty negative prompt may be one to compare with.
        return [line for line in lines if line.strip()] if name == "prompt" else lines
    given = list(filter(None, re.split(r"\s*[,;\n]\s*", text.strip())))
    return given if name in _LISTED else [number for value in given for number in _numbers(name, value)]


def _numbers(name: str, value: str) -> Sequence[str]:
    """`0-4` as five numbers; or numbers separated by spaces."""
    found = _RANGE.fullmatch(value)
    if not found or name not in _WHOLE:
        return value.split()
    first, last = map(int, found.groups())
    if not first <= last < first + MOST:
        raise UserError(f"“{value}” is not a range of 1 to {MOST} numbers: write it as in 0-4.")
    return list(map(str, range(first, last + 1)))


def _written(value: float | str | None) -> str:
    if value is None:
        return RESULT
    return f"{value:g}" if isinstance(value, float) else str(value)


_LABELS: dict[str, Callable[[Any], str]] = {
    "prompt": lambda prompt: prompt.replace("{}", "…"),
    "negative_prompt": lambda prompt: f"not: {prompt}" if prompt else "no negative prompt",
    "steps": lambda steps: f"{steps} steps",
    "scheduler": str,
    "training_step": lambda step: "the result" if step is None else f"step {step}",
    "word": str,
}


# A sheet of pictures.
_CHUNK = "grid"
AxisValues = tuple[str, Iterable[Any]]


@dataclass(frozen=True)
class Sheet:
    """A sheet, its pictures row by row, and the plan that it was drawn from. A notebook shows the sheet."""

    name: str
    image: Described = field(repr=False)
    pictures: list[Picture] = field(repr=False)
    plan: GridPlan = field(repr=False)

    def save(self, concept: Concept) -> Path:
        """Save the sheet as `grids/<name>.png`, its pictures with their settings in `grids/<name>/`.

        The sheet's file holds the plan, for `reopen` and `redraw`.
        """
        folder = concept.grids_folder / self.name
        for picture in self.pictures:
            save_picture(picture, folder)
        return write_png(self.image, folder.with_suffix(".png"), {_CHUNK: self.plan.model_dump_json()})

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """IPython's hook: the sheet and its text."""
        return self.image._repr_mimebundle_()


def xy_grid(
    pipeline: Any, x: AxisValues, y: AxisValues | None = None, name: str | None = None, **settings
) -> Sheet:
    """A column for each value of one setting, a row for each value of another.

        xy_grid(pipeline, x=("guidance", [2, 4, 8]), y=("seed", range(3)), prompt="a photo of a {}")

    Args:
        x: a setting and its values: `prompt`, `negative_prompt`, `seed`, `guidance`, `steps`, `scheduler`,
            `weight` (of the word), `training_step` (None: the result) or `word` (what is in its place).
        y: the same for the rows; None: one row.
        name: of the file that `Sheet.save` writes.
        settings: those that no axis varies, also `size` and `batch_size`; `{}` in a prompt is the word.

    Raises:
        UserError: something of this can't be used; nothing was drawn then.
    """
    return draw_plan(pipeline, make_plan(pipeline, x, y, **settings), name)


def make_plan(pipeline: Any, x: AxisValues, y: AxisValues | None = None, **settings) -> GridPlan:
    """What `xy_grid` would draw. A setting that is None is the model's own; a training step, the result."""
    word = word_of(pipeline)
    own = pipeline_settings(pipeline) | {"word": word and word.concept.placeholder_token}
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
    drawn = [picture.settings for picture in pictures]
    hashes = {_written(one.training_step): one.rows_hash for one in drawn if one.rows_hash}
    plan = plan.model_copy(update={"rows_hashes": hashes})
    return Sheet(name or plan.title, _laid_out(plan, pictures), pictures, plan)


def reopen(path: Path | str, content: bytes | None = None) -> GridPlan:
    """What a saved sheet was drawn with; arguments and errors as for `read_png`."""
    return read_png(path, _CHUNK, GridPlan, content)


def saved_sheets(concept: Concept) -> list[Path]:
    """The files that `Sheet.save` wrote, the newest first."""
    sheets = [path for path in concept.grids_folder.rglob("*.png") if path.with_suffix("").is_dir()]
    return sorted(sheets, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def redraw(path: Path | str, pipeline: Any = None) -> Sheet:
    """Draw a saved sheet again from its PNG file; on the same CPU, bit for bit. Errors as for `remake`."""
    plan = reopen(path)
    pipeline = pipeline_for(path, plan.hashes, plan.base_model, pipeline)
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
    return described(sheet, f"{counted(len(pictures), 'picture')}{differ}, for the prompt “{prompt}”")


# Labels at the edges of a sheet of pictures, drawn by matplotlib.
_DPI = 100
_POINTS = 9
_LETTER = 8  # pixels, about
_BESIDE = 16  # letters in a line of a row's label


def with_labels(
    body: Image.Image, rows: Sequence[str], columns: Sequence[str], points: float = _POINTS
) -> Image.Image:
    """Put labels above the columns and to the left of the rows, wrapped to fit.

    Args:
        body: what `image_grid` laid out, `len(columns)` pictures wide and `len(rows)` high.
        points: size of the letters.
    """
    drawn = io.BytesIO()
    with one_figure, style.context("default"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # an emoji in a prompt is a box then
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
        figure.draw_without_rendering()
        # Whole pixels: with "tight", matplotlib before 3.11 shifts the pictures by a fraction of one.
        edges = figure.get_tightbbox().padded(0.02)
        left, bottom = (math.floor(edge * _DPI) / _DPI for edge in edges.min)
        right, top = (math.ceil(edge * _DPI) / _DPI for edge in edges.max)
        shown = Bbox.from_extents(left, bottom, right, top)
        figure.savefig(drawn, format="png", bbox_inches=shown, transparent=True)
    return Image.open(drawn)


def _ticks(labels: Sequence[str], length: int, letters: int) -> tuple[list[float], list[str]]:
    """Where each picture's middle is along a side of the sheet, and its label, wrapped at `letters`."""
    step = (length + GAP) / len(labels)
    middles = [index * step + (step - GAP) / 2 for index in range(len(labels))]
    return middles, [textwrap.fill(label, max(letters, 6)) for label in labels]


def a_few_steps(concept: Concept, most: int = 5) -> list[int]:
    """At most `most` of the kept training steps, spread evenly from the first to the last."""
    steps = saved_steps(concept)
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]
