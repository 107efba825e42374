"""X/Y grids: pictures that differ in one or two settings, drawn, saved, reopened and drawn again."""

import io
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from pydantic import ValidationError

from ..common.errors import UserError
from ..common.sheets import GAP, INK, Described, described, image_grid
from ..concept.concept import Concept
from ..concept.embedding import concept_with_rows, hash_rows, read_rows, saved_steps
from .grid_plan import RESULT, Axis, Cell, GridPlan
from .pipeline import (
    DEFAULT_SCHEDULER,
    check_settings,
    draw,
    drawing_bar,
    one_at_a_time,
    own_size,
    pipeline_with_word,
    remark,
    switch_step,
)
from .png import Picture, no_settings, read_png, save_picture, write_png

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


def xy_grid(
    pipeline: Any,
    concept: Concept | None,
    x: Given,
    y: Given | None = None,
    name: str | None = None,
    **settings,
) -> Sheet:
    """A column for each value of one setting, a row for each value of another.

        xy_grid(pipeline, concept, x=("guidance", [2, 4, 8]), y=("seed", range(3)), prompt="a photo of a {}")

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
    return draw_plan(pipeline, make_plan(pipeline, x, y, **settings), concept, name)


def make_plan(pipeline: Any, x: Given, y: Given | None = None, **settings) -> GridPlan:
    """What `xy_grid` would draw. What is None is the model's own; as a training step, the result.

    Raises:
        UserError: an axis or a setting can't be used.
    """
    word = getattr(pipeline, "learned_word", None)
    own = {
        "base_model": Path(word.concept.base_model).name if word else "unknown",
        "word": word and word.placeholder_token,
        "training_step": word and word.step,
        "scheduler": DEFAULT_SCHEDULER,
        "size": own_size(pipeline),
        "prompt": "a photo of a {}",
    }
    given = {key: value for key, value in settings.items() if value is not None or key == "training_step"}
    return GridPlan.make(**(own | given), x=Axis.make(*x), y=Axis.make(*y) if y else None)


def check_plan(pipeline: Any, plan: GridPlan) -> list[list[Cell]]:
    """Look at everything that a person can mistype in a plan.

    Returns:
        Its cells; those that have all but prompt and seed in common, and are drawn together, in one list.

    Raises:
        UserError: something of it can't be used.
    """
    together = defaultdict(list)
    for cell in plan.cells():
        together[cell.training_step, cell.sampling].append(cell)
    for group in together.values():
        prompts, seeds = [cell.prompt for cell in group], [cell.seed for cell in group]
        check_settings(pipeline, prompts, seeds, group[0].sampling, plan.size)
    return list(together.values())


@one_at_a_time()
def draw_plan(
    pipeline: Any,
    plan: GridPlan,
    concept: Concept | None = None,
    name: str | None = None,
    bar: Any = None,
    say: Callable[[str], Any] = print,
) -> Sheet:
    """Draw a grid. The pipeline is left with the training step that it had.

    Args:
        concept: needed where the grid asks for another training step than the pipeline has.
        bar: a tqdm bar over `plan.cells()`' steps, as for `inference.generate`; so is `say`.

    Raises:
        UserError: something of the plan can't be used; nothing was drawn then.
    """
    groups = check_plan(pipeline, plan)
    _check_training_steps(pipeline, concept, {group[0].training_step for group in groups})
    before = _step(pipeline)
    drawn = {}
    try:
        with drawing_bar(sum(cell.sampling.steps for group in groups for cell in group), bar) as moved_on:
            for group in groups:
                _turn_to(pipeline, concept, group[0].training_step)
                prompts, seeds = [cell.prompt for cell in group], [cell.seed for cell in group]
                common = group[0].sampling, plan.size, plan.batch_size
                drawn |= zip(group, draw(pipeline, prompts, seeds, *common, moved_on), strict=True)
    finally:
        _turn_to(pipeline, concept, before)
    pictures = [drawn[cell] for cell in plan.cells()]
    if sentence := remark(pipeline, pictures):
        say(sentence)
    plan = plan.model_copy(update={"rows_hashes": _hashes(pictures)})
    return Sheet(name or plan.title, _laid_out(plan, pictures), pictures, plan)


def reopen(path: Path | str, content: bytes | None = None) -> GridPlan:
    """What a saved sheet was drawn with.

    Args:
        content: the file itself, where it is not on this machine's disk.

    Raises:
        UserError: there is no such file, or it holds no grid of this series.
    """
    try:
        return GridPlan.model_validate_json(read_png(path, content).get(_CHUNK, ""))
    except ValidationError:
        raise no_settings(path) from None


def saved_sheets(concept: Concept) -> list[Path]:
    """The files that `Sheet.save` wrote, the newest first."""
    sheets = [path for path in concept.grids_folder.rglob("*.png") if path.with_suffix("").is_dir()]
    return sorted(sheets, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def redraw(path: Path | str, pipeline: Any = None) -> Sheet:
    """Draw a saved sheet again from what its PNG file holds; on the same CPU, bit for bit.

    Args:
        pipeline: one with the word in it, where there is one already.

    Raises:
        UserError: the file holds no grid, or the word has been learned anew since.
    """
    plan = reopen(path)
    if plan.word is None:
        raise UserError(f"{Path(path).name} was made without a concept: there is no word to load.")
    if not pipeline:
        pipeline = pipeline_with_word(_concept_of(plan, Path(path)), plan.training_step)
    concept = pipeline.learned_word.concept
    check_same_concept(pipeline, plan)
    check_same_word(pipeline, plan)
    return draw_plan(pipeline, plan.with_word(concept.placeholder_token), concept, Path(path).stem)


def _concept_of(plan: GridPlan, near: Path) -> Concept:
    """The concept whose word a grid was drawn with, by the hash of its rows."""
    for step, hash_ in _hashes_by_step(plan):
        if concept := concept_with_rows(hash_, step, near):
            return concept
    raise UserError(f"The word of {near.name} is not here as it was: it has been learned again since.")


def _hashes_by_step(plan: GridPlan) -> list[tuple[int | None, str]]:
    return [(None if step == RESULT else int(step), hash_) for step, hash_ in plan.rows_hashes.items()]


def check_same_concept(pipeline: Any, plan: GridPlan) -> None:
    """See that a grid was not drawn with another concept than the pipeline's.

    Raises:
        UserError: another concept's word has the rows that it was drawn with.
    """
    word = pipeline.learned_word
    for step, hash_ in _hashes_by_step(plan):
        if (word.step, word.rows_hash) != (step, hash_):
            found = concept_with_rows(hash_, step, near=word.concept.embeds_path)
            if found and found.name != word.concept.name:
                raise UserError(
                    f"This grid was drawn with the concept {found.name}: open notebook 5 with it."
                )


def check_same_word(pipeline: Any, plan: GridPlan) -> None:
    """See that the word still has the rows that a grid was drawn with.

    Raises:
        UserError: it is another word, or it has been learned again since.
    """
    word = pipeline.learned_word
    for step, then in _hashes_by_step(plan):
        now = word.rows_hash if step == word.step else hash_rows(read_rows(word.concept, step))
        if now != then:
            raise UserError(
                f"{word.placeholder_token} is not what it was when this grid was drawn: it has been learned "
                "again since, so the pictures would be different."
            )


def _check_training_steps(pipeline: Any, concept: Concept | None, steps: set[int | None]) -> None:
    for step in steps - {_step(pipeline)}:
        if concept is None or concept.name != pipeline.learned_word.concept.name:
            raise UserError(
                "Training steps need the concept that the pipeline was loaded with: give that one."
            )
        read_rows(concept, step)


def _step(pipeline: Any) -> int | None:
    word = getattr(pipeline, "learned_word", None)
    return word and word.step


def _turn_to(pipeline: Any, concept: Concept | None, step: int | None) -> None:
    if step != _step(pipeline):
        switch_step(pipeline, concept, step)


def _hashes(pictures: Sequence[Picture]) -> dict[str, str]:
    """The hash of the word's rows for each training step that was drawn with."""
    settings = [picture.settings for picture in pictures if picture.settings.rows_hash]
    return {
        RESULT if own.training_step is None else str(own.training_step): own.rows_hash for own in settings
    }


def _laid_out(plan: GridPlan, pictures: Sequence[Picture]) -> Described:
    wrapped = plan.columns and plan.y is None
    columns = plan.columns if wrapped else len(plan.x.values)
    sheet = image_grid([picture.image for picture in pictures], columns)
    if not wrapped:
        sheet = with_labels(sheet, plan.y.labels if plan.y else [""], plan.x.labels)
    places = ((plan.x, "columns"), (plan.y, "rows"))
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
    axes.set_xticks(_centres(body.width, len(columns)), _wrapped(columns, width), parse_math=False)
    axes.set_yticks(_centres(body.height, len(rows)), _wrapped(rows, _BESIDE), parse_math=False)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # an emoji in a prompt is a box then
        figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.02, transparent=True)
    return Image.open(drawn)


def _centres(length: int, count: int) -> list[float]:
    step = (length + GAP) / count
    return [index * step + (step - GAP) / 2 for index in range(count)]


def _wrapped(labels: Sequence[str], letters: int) -> list[str]:
    return ["\n".join(textwrap.wrap(label, max(letters, 6))) for label in labels]


def a_few_steps(concept: Concept, most: int = 5) -> list[int]:
    """At most `most` of the kept training steps, spread evenly from the first to the last."""
    steps = saved_steps(concept)
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]
