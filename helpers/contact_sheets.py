"""Sheets of pictures that differ in one or two things, with what differs written at the edges."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .concept import Concept
from .grid import image_grid
from .inference import generate, switch_step
from .png_settings import Picture, save_picture
from .training.result import saved_steps

_CELL = 128
_LARGEST_CELL = 160
_LETTER = 7  # pixels, about
_LINE = 14


@dataclass(frozen=True)
class Sheet:
    """A sheet and the pictures on it. The last line of a notebook's cell shows it, as JPEG."""

    name: str
    image: Image.Image = field(repr=False)
    pictures: list[Picture] = field(repr=False)

    def save(self, concept: Concept) -> Path:
        """Save the sheet as `grids/<name>.png`, its pictures with their settings in `grids/<name>/`."""
        folder = concept.grids_folder / self.name
        for picture in self.pictures:
            save_picture(picture, folder)
        path = folder.with_suffix(".png")
        partial = path.with_suffix(".partial")
        self.image.save(partial, format="PNG")
        return partial.replace(path)

    def _repr_jpeg_(self) -> bytes:
        packed = io.BytesIO()
        self.image.save(packed, format="JPEG", quality=85)
        return packed.getvalue()


def prompt_sheet(
    pipeline: Any, prompt: str, seeds: Sequence[int], columns: int = 5, name: str = "prompt", **settings
) -> Sheet:
    """One prompt, a picture for each seed, row by row: 20 seeds make the source tutorial's grid of 5 x 4.

    Args:
        settings: more of `inference.generate`'s arguments; so in each function here.
    """
    pictures = generate(pipeline, prompt, seeds, **settings)
    image = image_grid([picture.image for picture in pictures], columns, cell=_cell(pictures[0]))
    return Sheet(name, image, pictures)


def before_and_after(
    pipeline: Any, concept: Concept, prompts: Sequence[str], seed: int = 0, **settings
) -> Sheet:
    """The initializer above, the word below, with the same seed and prompts (`{}` stands for the word)."""
    subjects = (concept.initializer_token, concept.placeholder_token)
    filled = [prompt.replace("{}", subject) for subject in subjects for prompt in prompts]
    pictures = generate(pipeline, filled, seed, **settings)
    return _sheet("before_and_after", pictures, subjects, _labels(prompts))


def prompts_by_seeds(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], name: str = "prompts_by_seeds", **settings
) -> Sheet:
    """A row for each prompt, a column for each seed."""
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    pictures = generate(pipeline, *map(list, zip(*pairs, strict=True)), **settings)
    return _sheet(name, pictures, prompts, [f"seed {seed}" for seed in seeds])


def guidance_by_seeds(
    pipeline: Any, prompt: str, guidances: Sequence[float], seeds: Sequence[int], **settings
) -> Sheet:
    """A row for each guidance, a column for each seed."""
    pictures = [
        picture
        for guidance in guidances
        for picture in generate(pipeline, prompt, seeds, guidance=guidance, **settings)
    ]
    rows = [f"guidance {guidance:g}" for guidance in guidances]
    return _sheet("guidance_by_seeds", pictures, rows, [f"seed {seed}" for seed in seeds])


def schedulers_by_seeds(
    pipeline: Any, prompt: str, schedulers: Sequence[str], seeds: Sequence[int], **settings
) -> Sheet:
    """A row for each scheduler, a column for each seed."""
    pictures = [
        picture
        for scheduler in schedulers
        for picture in generate(pipeline, prompt, seeds, scheduler=scheduler, **settings)
    ]
    return _sheet("schedulers_by_seeds", pictures, schedulers, [f"seed {seed}" for seed in seeds])


def steps_by_prompts(
    pipeline: Any,
    concept: Concept,
    prompts: Sequence[str],
    steps_of_training: Sequence[int],
    seed: int = 0,
    **settings,
) -> Sheet:
    """A row for each training step and one for the result, a column for each prompt, all at one seed.

    From it a person picks a step for `embeddings.use_step`. The pipeline is left with the result.
    """
    filled = [prompt.replace("{}", concept.placeholder_token) for prompt in prompts]
    pictures = []
    for step in (*steps_of_training, None):
        switch_step(pipeline, concept, step)
        pictures += generate(pipeline, filled, seed, **settings)
    rows = [*(f"step {step}" for step in steps_of_training), "the result"]
    return _sheet("steps_by_prompts", pictures, rows, _labels(prompts))


def a_few_steps(concept: Concept, most: int = 5) -> list[int]:
    """At most `most` of the kept training steps, spread evenly from the first to the last."""
    steps = saved_steps(concept)
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def _sheet(
    name: str, pictures: list[Picture], row_labels: Sequence[str], column_labels: Sequence[str]
) -> Sheet:
    cell = _cell(pictures[0])
    body = image_grid([picture.image for picture in pictures], len(column_labels), cell=cell)
    return Sheet(name, _with_labels(body, row_labels, column_labels), pictures)


def _labels(prompts: Sequence[str]) -> list[str]:
    return [prompt.replace("{}", "…") for prompt in prompts]


def _cell(picture: Picture) -> int:
    side = max(picture.image.size)
    return _CELL if side < _CELL else min(side, _LARGEST_CELL)


def _with_labels(body: Image.Image, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Column labels above, row labels at the left, each wrapped to its cell."""
    width, height = body.width / len(columns), body.height / len(rows)
    above = [textwrap.wrap(label, int(width / _LETTER)) for label in columns]
    beside = [textwrap.wrap(label, int(_CELL / _LETTER)) for label in rows]
    top = _LINE * max(map(len, above)) + 6
    left = _LETTER * max(len(line) for lines in beside for line in lines) + 10
    sheet = Image.new("RGB", (left + body.width, top + body.height), "white")
    sheet.paste(body, (left, top))
    for index, lines in enumerate(above):
        _write(sheet, lines, left + (index + 0.5) * width, top / 2)
    for index, lines in enumerate(beside):
        _write(sheet, lines, left / 2, top + (index + 0.5) * height)
    return sheet


def _write(sheet: Image.Image, lines: list[str], middle: float, centre: float) -> None:
    font = ImageFont.load_default(size=11)
    ImageDraw.Draw(sheet).multiline_text(
        (middle, centre), "\n".join(lines), fill="#333333", font=font, anchor="mm", align="center", spacing=2
    )
