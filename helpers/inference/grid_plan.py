"""What a grid is drawn with: the settings that all its pictures share, and what differs along its axes."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from ..common.errors import UserError
from ..concept.concept import settings_in_words
from .png import DrawingSettings, PictureSettings
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
    """What an axis can vary: of pictures, and which word stands at `{}`, with which weight."""

    weight: float = Field(1.0, ge=0, le=MOST_WEIGHT)
    word: str | None = None


class Axis(BaseModel):
    """A setting, and the values that it takes from left to right or from top to bottom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AxisName
    values: tuple[int | float | str | None, ...]

    @classmethod
    def make(cls, name: str, values: Iterable[Any]) -> Self:
        """Check what was given; a `UserError` names what can't be used."""
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
        """Read values as a person types them: prompts one a line, others with commas; `0-4` is a range."""
        return cls.make(name, _split(name, text))

    @property
    def text(self) -> str:
        """The values as they would be typed."""
        return ("\n" if self.name in _LINES else ", ").join(map(_written, self.values))

    @property
    def labels(self) -> list[str]:
        """A few words for each value, to be written at the edge of a sheet."""
        return [_label(self.name, value) for value in self.values]


class GridPlan(GridSettings):
    """Everything that it takes to draw a grid again, given the model and the word.

    `{}` in a prompt stands for `word`, which is the learned word unless an axis puts another in its
    place. `columns` wraps a grid of one axis. `rows_hashes`: of the word's rows, by training step.
    """

    model_config = ConfigDict(extra="forbid")

    batch_size: int | None = None
    x: Axis
    y: Axis | None = None
    columns: int | None = None
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
        """What is written at the left of each row, and above each column; empty where a grid is wrapped."""
        if self.columns and not self.y:
            return [""] * -(-len(self.x.values) // self.columns), [""] * self.columns
        return self.y.labels if self.y else [""], self.x.labels

    @property
    def labels(self) -> list[str]:
        """What tells each picture from the others, row by row."""
        beside = self.y.labels if self.y else [""]
        return [", ".join(filter(None, (down, across))) for down in beside for across in self.x.labels]

    @property
    def hashes(self) -> dict[int | None, str]:
        """`rows_hashes` by training step, as pictures name it."""
        return {None if step == RESULT else int(step): hash_ for step, hash_ in self.rows_hashes.items()}

    def drawn_as(self, pictures: Iterable[PictureSettings]) -> Self:
        """The same with the hashes of the rows that its pictures were drawn with."""
        hashes = {_written(own.training_step): own.rows_hash for own in pictures if own.rows_hash}
        return self.model_copy(update={"rows_hashes": hashes})

    def with_word(self, word: str) -> Self:
        """The same grid for its word's present name."""
        if self.word is None:
            return self
        alone = rf"(?<!\w){re.escape(self.word)}(?!\w)"

        def renamed(value: Any) -> Any:
            is_text = isinstance(value, str)
            return re.sub(alone, lambda _: word, value, flags=re.IGNORECASE) if is_text else value

        axes = {
            side: axis.model_copy(update={"values": tuple(map(renamed, axis.values))})
            for side, axis in zip("xy", self.axes, strict=False)
        }
        return self.model_copy(
            update=axes | {name: renamed(getattr(self, name)) for name in ("word", *_LINES)}
        )

    def cells(self) -> list[PictureSettings]:
        """What each picture is asked for, row by row.

        Raises:
            UserError: both axes are the same, there are too many pictures, or the word is to be
                weighted or replaced in a prompt that has not got it.
        """
        if self.y and self.x.name == self.y.name:
            raise UserError(f"Both axes are {self.x.name}: choose another for one of them.")
        count = math.prod(len(axis.values) for axis in self.axes)
        if count > MOST:
            raise UserError(
                f"This grid would have {count:,} pictures: give fewer values, {MOST} pictures at most."
            )
        names = [axis.name for axis in reversed(self.axes)]
        values = itertools.product(*(axis.values for axis in reversed(self.axes)))
        return [self._cell(dict(zip(names, varied, strict=True))) for varied in values]

    def _cell(self, varied: Mapping[str, Any]) -> PictureSettings:
        own = self.model_copy(update=varied)
        settings = {name: getattr(own, name) for name in DrawingSettings.model_fields}
        settings["prompt"] = self._filled(own.prompt, own.word, own.weight)
        settings["negative_prompt"] = own.negative_prompt.replace("{}", self.word or "{}")
        return PictureSettings(**settings)

    def _filled(self, prompt: str, word: str | None, weight: float) -> str:
        # Of a longer word beside it, such as `<g>_s` beside `<g>`, it is no part.
        alone = rf"{re.escape(self.word or '')}(?![_\d])"
        place = re.sub(alone, "{}", prompt, flags=re.IGNORECASE) if self.word else prompt
        if "{}" not in place and (word, weight) != (self.word, 1):
            raise UserError(
                f"The prompt “{prompt}” has no {self.word or 'learned word'}: put it in, so that there is "
                "something to weigh or to replace."
            )
        return place.replace("{}", weighted(word, weight)) if word else prompt


def _read(name: str, value: Any) -> Any:
    """A value as its setting has it, checked: numbers may be typed."""
    if isinstance(value, str):
        value = value.strip()
    if name == "training_step" and value == RESULT:
        return None
    with settings_in_words():
        return getattr(GridSettings(**{name: value}), name)


def _split(name: str, text: str) -> list[str]:
    if name in _LINES:
        lines = text.split("\n")
        # An empty negative prompt is one that a person may want to compare with.
        return [line for line in lines if line.strip()] if name == "prompt" else lines
    given = list(filter(None, re.split(r"\s*[,;\n]\s*", text.strip())))
    return given if name in _LISTED else [number for value in given for number in _numbers(name, value)]


def _numbers(name: str, value: str) -> Sequence[str]:
    """`0-4` counted out; several numbers with spaces between them."""
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


def _label(name: str, value: Any) -> str:
    return _LABELS[name](value) if name in _LABELS else f"{name} {_written(value)}"
