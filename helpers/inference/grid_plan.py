"""What a grid is drawn with: the settings that all its pictures share, and what differs along its axes."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..common.errors import UserError
from .pipeline import Sampling
from .prompt_weights import MOST as MOST_WEIGHT
from .prompt_weights import weighted

AxisName = Literal[
    "prompt", "negative_prompt", "seed", "guidance", "steps", "scheduler", "weight", "training_step", "word"
]
Value = int | float | str | None
RESULT = "result"  # how the training's end is typed among its steps
MOST = 400
_WHOLE = ("seed", "steps", "training_step")
_LINES = ("prompt", "negative_prompt")
_LISTED = ("scheduler", "word")
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


class Axis(BaseModel):
    """A setting, and the values that it takes from left to right or from top to bottom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AxisName
    values: tuple[Value, ...]

    @classmethod
    def make(cls, name: str, values: Iterable[Any]) -> Self:
        """Check what was given.

        Raises:
            UserError: there is no such axis, it has no values, or one of them can't be read.
        """
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
        """Read values as a person types them: prompts one a line, others with commas; `0-4` is a range.

        Raises:
            UserError: as for `make`.
        """
        return cls.make(name, _split(name, text))

    @property
    def text(self) -> str:
        """The values as they would be typed."""
        shown = [_written(self.name, value) for value in self.values]
        return ("\n" if self.name in _LINES else ", ").join(shown)

    @property
    def labels(self) -> list[str]:
        """A few words for each value, to be written at the edge of a sheet."""
        return [_label(self.name, value) for value in self.values]


@dataclass(frozen=True)
class Cell:
    """What one picture of a grid is asked for."""

    prompt: str
    seed: int
    sampling: Sampling
    training_step: int | None


class GridPlan(BaseModel):
    """Everything that it takes to draw a grid again, given the model and the word.

    `{}` in a prompt stands for `word`, which is the learned word unless an axis puts another in its
    place. `columns` wraps a grid of one axis. `rows_hashes`: of the word's rows, by training step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str
    word: str | None
    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    guidance: float = 7.5
    steps: int = 25
    scheduler: str
    weight: float = 1.0
    training_step: int | None = None
    size: int
    batch_size: int | None = None
    x: Axis
    y: Axis | None = None
    columns: int | None = None
    rows_hashes: dict[str, str] = Field(
        {},
        validation_alias=AliasChoices("rows_hashes", "rows"),  # `rows` in older files
    )

    @model_validator(mode="before")
    @classmethod
    def _without_name(cls, saved: Any) -> Any:
        """Older files hold the concept's name."""
        return {name: saved[name] for name in saved if name != "concept"}

    @classmethod
    def make(cls, **settings) -> Self:
        """Check the settings that all pictures share.

        Raises:
            UserError: there is no such setting, or it can't have that value.
        """
        try:
            plan = cls(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
        _check_weight(plan.weight)
        return plan

    @property
    def axes(self) -> list[Axis]:
        return [self.x] if self.y is None else [self.x, self.y]

    @property
    def title(self) -> str:
        """Which settings differ, as a file name."""
        return "_by_".join(axis.name for axis in reversed(self.axes))

    @property
    def labels(self) -> list[str]:
        """What tells each picture from the others, row by row."""
        beside = self.y.labels if self.y else [""]
        return [", ".join(filter(None, (down, across))) for down in beside for across in self.x.labels]

    def with_word(self, word: str) -> Self:
        """The same grid for its word's present name."""
        if self.word is None:
            return self
        alone = rf"(?<!\w){re.escape(self.word)}(?!\w)"

        def renamed(value: Value) -> Value:
            is_text = isinstance(value, str)
            return re.sub(alone, lambda _: word, value, flags=re.IGNORECASE) if is_text else value

        axes = {
            side: axis.model_copy(update={"values": tuple(map(renamed, axis.values))})
            for side, axis in zip("xy", self.axes, strict=False)
        }
        texts = {name: renamed(getattr(self, name)) for name in ("word", *_LINES)}
        return self.model_copy(update=axes | texts)

    def cells(self) -> list[Cell]:
        """What each picture is asked for, row by row.

        Raises:
            UserError: both axes are the same, there are too many pictures, or the word is to be
                weighted or replaced in a prompt that has not got it.
        """
        self._check()
        values = itertools.product(*(axis.values for axis in reversed(self.axes)))
        names = [axis.name for axis in reversed(self.axes)]
        return [self._cell(dict(zip(names, varied, strict=True))) for varied in values]

    def _check(self) -> None:
        if self.y and self.x.name == self.y.name:
            raise UserError(f"Both axes are {self.x.name}: choose another for one of them.")
        count = math.prod(len(axis.values) for axis in self.axes)
        if count > MOST:
            raise UserError(
                f"This grid would have {count:,} pictures: give fewer values, {MOST} pictures at most."
            )

    def _cell(self, varied: dict[str, Value]) -> Cell:
        own = {name: getattr(self, name) for name in get_args(AxisName)} | varied
        own["prompt"] = self._filled(own["prompt"], own.pop("word"), own.pop("weight"))
        own["negative_prompt"] = own["negative_prompt"].replace("{}", self.word or "{}")
        sampling = Sampling(**{name: own[name] for name in Sampling._fields})
        return Cell(own["prompt"], own["seed"], sampling, own["training_step"])

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


def _read(name: str, value: Any) -> Value:
    if name == "training_step" and value in (None, RESULT):
        return None
    if name in (*_LINES, *_LISTED):
        return str(value).strip()
    try:
        number = (int if name in _WHOLE else float)(value)
        if number != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise UserError(f"“{value}” can't be a value of {name}: give {kind}.") from None
    if name == "weight":
        _check_weight(number)
    return number


def _check_weight(number: float) -> None:
    if not 0 <= number <= MOST_WEIGHT:
        raise UserError(f"The weight {number:g} can't be used: give a number from 0 to {MOST_WEIGHT:g}.")


def _split(name: str, text: str) -> list[str]:
    if name in _LINES:
        lines = [line.strip() for line in text.split("\n")]
        # An empty negative prompt is one that a person may want to compare with.
        return [line for line in lines if line] if name == "prompt" else lines
    given = [value.strip() for value in re.split(r"[,;\n]", text) if value.strip()]
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


def _written(name: str, value: Value) -> str:
    if value is None:
        return RESULT
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(name: str, value: Value) -> str:
    write: dict[str, Callable[[Any], str]] = {
        "prompt": lambda prompt: prompt.replace("{}", "…"),
        "negative_prompt": lambda prompt: f"not: {prompt}" if prompt else "no negative prompt",
        "steps": lambda steps: f"{steps} steps",
        "scheduler": str,
        "training_step": lambda step: "the result" if step is None else f"step {step}",
        "word": str,
    }
    return write[name](value) if name in write else f"{name} {_written(name, value)}"
