"""Draw with a learned word: a prompt, its settings, a grid over two of them; and turn the word back."""

import contextlib
import functools
import hashlib
import html
import threading
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, Dropdown, FloatSlider, FloatText, HBox, IntText, Textarea, VBox, Widget
from tqdm.notebook import tqdm_notebook
from traitlets import TraitError

from ..common.errors import UserError
from ..common.sheets import html_table
from ..concept.concept import Concept
from ..concept.embedding import saved_steps, turned, use_step
from ..concept.overview import concept_folder
from ..inference import grid
from ..inference import pipeline as drawing
from ..inference.examples import MINIATURE_KNOWS, examples_for, unknown_words
from ..inference.png import SCHEDULERS, Picture
from ..model.tokens import learned_tokens
from . import kit

_WIDE, _MIDDLE = 900, 480  # pixels
_TEXT = {"rows": 2, "continuous_update": False}
_PROMPTS = ("prompt", "negative_prompt")
_ABOUT_PROMPT = "What to draw; (word:1.3) makes a word count for more, (word:0.7) for less"
_ABOUT_WEIGHT = "How much your word counts in the prompt, 0 to 2; at 1, like any other"
_FIELDS = {  # of each setting that all pictures share: the widget, its tooltip, its settings
    "prompt": (Textarea, _ABOUT_PROMPT, {"width": _WIDE} | _TEXT),
    "negative_prompt": (Textarea, "What the picture moves away from", {"width": _WIDE} | _TEXT),
    "seed": (IntText, "Where the random numbers start: the same seed, the same picture", {}),
    "guidance": (FloatText, "How much the prompt counts; at 1, only as much as by itself", {"step": 0.5}),
    "steps": (IntText, "The number of steps in which the noise is removed", {}),
    "scheduler": (Dropdown, "The rule by which the noise is removed", {"options": list(SCHEDULERS)}),
    "weight": (FloatText, _ABOUT_WEIGHT, {"step": 0.1}),
    "training_step": (Dropdown, "The word as training kept it at that step", {}),
}
_KEPT = ("size", "batch_size", "columns")  # of a plan, though the form has no fields for them


class GridForm(kit.View):
    """A form for `xy_grid`. What it draws is saved in `grids/yours/`.

    Pressing a picture shows its settings; a saved grid can be reopened. Its static HTML is the call of
    `xy_grid` that draws the same, and the last grid.
    """

    def __init__(self, pipeline: Any, concept: Concept, prompt: str, **settings):
        """Show the form with a prompt; `settings` are others of `xy_grid`'s."""
        self._pipeline, self._concept = pipeline, concept
        self.sheet: grid.Sheet | None = None
        self.fields, self.unknown = _fields(concept), HTML(layout={"margin": kit.INDENT})
        self.x, self.y = AxisField("X", self._beginning), AxisField("Y", self._beginning)
        self._progress, self.message = VBox(), kit.Message()
        about = "Draw the grid", "End after the step that is being drawn"
        self.run = kit.StartStop(self.message, self._prepare, "Draw", *about)
        self.pictures, self.chosen = kit.PictureButtons(), ChosenPicture(self._use)
        self.saved = SavedSheets(concept, self._reopen)
        state = VBox([self._progress, self.message])
        seen = HBox([self.pictures, self.chosen], layout=kit.ROW)
        super().__init__([*self._rows(), self.x, self.y, self.run, state, seen, self.saved])
        self.fill(grid.make_plan(pipeline, ("seed", range(4)), prompt=prompt, **settings))
        for field in self.fields.values():
            field.observe(self._typed, "value")
        for axis in (self.x, self.y):
            axis.choice.observe(self._laid_out_anew, "value")
            axis.values.observe(self._laid_out_anew, "value")

    @property
    def plan(self) -> grid.GridPlan:
        """What the form asks for; a `UserError` if a value can't be read."""
        x, y = self.x.read(), self.y.read()
        values = {name: field.value for name, field in self.fields.items()}
        if values["training_step"] == grid.RESULT:
            values["training_step"] = None
        if x is None:  # `xy_grid` needs it: one column, or the seeds from left to right
            x, y = (y, None) if y and y.name == "seed" else (grid.Axis.make("seed", [values["seed"]]), y)
        axes = [axis and (axis.name, axis.values) for axis in (x, y)]
        return grid.make_plan(self._pipeline, *axes, **self._kept, **values)

    def fill(self, plan: grid.GridPlan) -> None:
        """Fill in a plan; a field that does not offer a value stays as it is."""
        self._filling = True
        for name, field in self.fields.items():
            with contextlib.suppress(TraitError):
                value = getattr(plan, name)
                field.value = grid.RESULT if value is None else value  # a list can't hold None
        self.x.fill(plan.x)
        self.y.fill(plan.y)
        self._filling = False
        self._kept = {name: getattr(plan, name) for name in _KEPT}
        self._mark()

    def _rows(self) -> list[Widget]:
        word = self._concept.placeholder_token
        prompt, negative, *others = self.fields.values()
        to_prompt = _buttons_that_add(prompt, word, f"({word}:1.3)")
        return [prompt, self.unknown, to_prompt, negative, _buttons_that_add(negative, word), *others]

    def _laid_out_anew(self, change) -> None:
        if not self._filling:
            self._kept["columns"] = None
            self._typed(change)

    def _typed(self, _change) -> None:
        """Say at once what can't be used, and mark its field."""
        if not self._filling:
            self.message.run(lambda: drawing.check(self._pipeline, self.plan.cells()))
            self._mark()

    def _mark(self) -> None:
        """Disable the settings that an axis has, mark what can't be used, and name unknown words."""
        axes = (self.x, self.y)
        for name, field in self.fields.items():
            field.disabled = name in (self.x.name, self.y.name)
            kit.mark_wrong(field, kit.error_of(functools.partial(self._check, name)))
        for axis in axes:
            kit.mark_wrong(axis.values, kit.error_of(axis.read))
        typed = [axis.values for axis in axes if axis.name in _PROMPTS]
        typed += [self.fields[name] for name in _PROMPTS]
        self.unknown.value = self._on_unknown_words(" ".join(field.value for field in typed))

    def _check(self, name: str) -> None:
        value = self.fields[name].value
        if name in _PROMPTS:
            drawing.check_prompt(self._pipeline, value.replace("{}", self._concept.placeholder_token))
        else:
            grid.Axis.make(name, [value])

    def _on_unknown_words(self, typed: str) -> str:
        """A remark on words that the model never saw: they are no mistake, but draw nothing."""
        words = unknown_words(self._concept, self._pipeline.tokenizer, typed)
        if not words:
            return ""
        unknown = kit.lines(f"The miniature does not know: {', '.join(words)}.")
        known = kit.lines(*(f"{kind}: {names}" for kind, names in MINIATURE_KNOWS.items()))
        return f'<div role="status">{unknown}<details><summary>What it knows</summary>{known}</details></div>'

    def _beginning(self, name: str) -> grid.Axis:
        """An axis with example values."""
        examples = examples_for(self._concept)
        values = {
            "seed": range(4),
            "prompt": [self.fields["prompt"].value, *examples.scenes[:2]],
            "negative_prompt": ["", "a photo"],
            "guidance": [1, 2, 4, 8],
            "steps": [5, 10, 25],
            "scheduler": SCHEDULERS,
            "weight": [0.5, 1, 1.5],
            "training_step": [*grid.a_few_steps(self._concept, 3), None],
            "word": filter(None, [self._concept.initializer_token, self._concept.placeholder_token]),
        }
        return grid.Axis.make(name, values[name])

    def _prepare(self) -> Callable[[], str]:
        concept_folder(self._concept.name)  # or a sentence: it was renamed or deleted since
        plan = self.plan
        drawing.check(self._pipeline, plan.cells())
        return functools.partial(self._draw, plan)

    def _draw(self, plan: grid.GridPlan) -> str:
        remarks = []
        # The same grid keeps one file, another gets its own.
        asked = plan.model_dump_json(exclude={"rows_hashes"})
        name = f"yours/{plan.title}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
        steps = sum(cell.steps for cell in plan.cells())
        with _Bar(total=steps, desc="Drawing", unit=" steps", display=False, leave=False) as bar:
            bar.stopped = self.run.asked_to_stop
            self._progress.children = [bar.container]
            try:
                sheet = grid.draw_plan(self._pipeline, plan, name, bar, remarks.append)
            finally:
                kit.show_in(self._progress, [])
        self._show(sheet)
        path = sheet.save(self._concept)
        self.saved.refresh()
        word = self._concept.placeholder_token
        if not any(word in cell.prompt for cell in plan.cells()):
            remarks.append(f"No prompt had your word in it: put {word} where it belongs, and draw again.")
        saved = f"Saved: {path.relative_to(self._concept.folder.parent).as_posix()}."
        return " ".join([saved, *remarks])

    def _show(self, sheet: grid.Sheet) -> None:
        """Show a sheet; until it is there, the pictures and settings are those of the one before."""

        def choose(number: int) -> None:
            self.chosen.show(sheet.pictures[number], sheet.plan.labels[number])

        images = [picture.image for picture in sheet.pictures]
        self.pictures.show(choose, images, sheet.plan.labels, *sheet.plan.edges)
        self.sheet, self.chosen.children = sheet, []

    def _use(self, picture: Picture) -> None:
        """Fill in one picture's settings; its prompt has the word's weight already."""
        settings = picture.settings
        own = {name: getattr(settings, name) for name in _FIELDS if name != "weight"}
        own |= {"x": grid.Axis.make("seed", [settings.seed]), "y": None, "columns": None, "weight": 1.0}
        self.message.run(lambda: self._filled(self.sheet.plan.model_copy(update=own)))

    def _reopen(self, read: Callable[[], grid.GridPlan]) -> None:
        self.message.run(lambda: self._filled(read(), is_another=True))

    def _filled(self, plan: grid.GridPlan, is_another: bool = False) -> str:
        is_as_then = drawing.has_rows(self._pipeline, plan.hashes)  # of another concept, the form stays
        self.fill(plan.with_word(self._concept.placeholder_token))
        if is_another:  # the pictures below the form would be of the one before
            self.sheet, self.chosen.children = None, []
            kit.show_in(self.pictures, [])
        if not is_as_then:
            raise UserError(drawing.LEARNED_AGAIN)
        if why := drawing.on_another_model(plan.base_model, drawing.word_of(self._pipeline).concept):
            raise UserError(why)
        return "Now Draw makes the same again, or change something first."

    def close(self) -> None:
        """Remove the form, and free the pipeline, which ipywidgets' reference to the form would keep."""
        self._pipeline = None
        super().close()

    def static_html(self) -> str:
        """The call that draws the same, and the last grid."""
        code = f"<pre>{html.escape(_as_code(self.plan))}</pre>"
        return code + (self.sheet.image.as_html() if self.sheet else "")


class _Bar(tqdm_notebook):
    """A bar that ends the drawing whose steps it counts once `stopped` is set."""

    stopped: threading.Event

    def update(self, n: int = 1) -> None:
        super().update(n)
        if self.stopped.is_set():
            raise KeyboardInterrupt


def _fields(concept: Concept) -> dict[str, Widget]:
    fields = {
        name: kit.field(kind, kit.title(name), about, **how) for name, (kind, about, how) in _FIELDS.items()
    }
    steps = ((f"step {step}", step) for step in saved_steps(concept))
    fields["training_step"].options = [("the result", grid.RESULT), *steps]
    return fields


def _buttons_that_add(prompt: Textarea, *words: str) -> HBox:
    def add(word: str) -> None:
        prompt.value = f"{prompt.value} {word}".strip()

    about = f"at the end of the {prompt.description.lower()}"
    buttons = [kit.button(f"+ {word}", functools.partial(add, word), f"Put {word} {about}") for word in words]
    return HBox(buttons, layout={"margin": kit.INDENT})


def _as_code(plan: grid.GridPlan) -> str:
    """The call of `xy_grid` for a plan."""
    axes = {side: (axis.name, list(axis.values)) for side, axis in zip("xy", plan.axes, strict=False)}
    varied = [axis.name for axis in plan.axes]
    shared = {name: getattr(plan, name) for name in (*_FIELDS, "size") if name not in varied}
    given = "".join(f"    {name}={value!r},\n" for name, value in (axes | shared).items())
    return f"xy_grid(\n    pipeline,\n{given})"


# What differs along an axis of a grid, and its values.
_CHOICES = {"nothing": None} | {kit.title(name): name for name in _FIELDS} | {"Before and after": "word"}


class AxisField(VBox):
    """What differs along an axis. Choosing a setting fills in example values."""

    def __init__(self, side: str, beginning: Callable[[str], grid.Axis]):
        """Show the field. `beginning` makes an axis with example values for a setting's name."""
        self._beginning = beginning
        about = "With commas between them; prompts each on its own line; 0-4 is 0, 1, 2, 3, 4"
        choices = {"options": list(_CHOICES)}
        self.choice = kit.field(Dropdown, f"{side} axis", f"What differs along {side}", **choices)
        self.values = kit.field(Textarea, f"{side} values", about, _MIDDLE, **_TEXT)
        self.choice.observe(self._begin, "value")
        super().__init__([self.choice, self.values])
        self._begin()

    @property
    def name(self) -> str | None:
        """The setting that differs, or None."""
        return _CHOICES[self.choice.value]

    def read(self) -> grid.Axis | None:
        """The axis as typed; a `UserError` if a value can't be read."""
        return grid.Axis.typed(self.name, self.values.value) if self.name else None

    def fill(self, axis: grid.Axis | None) -> None:
        """Show an axis."""
        name = axis.name if axis else None
        self.choice.value = next(title for title, choice in _CHOICES.items() if choice == name)
        self.values.value = axis.text if axis else ""

    def _begin(self, _change=None) -> None:
        self.values.value = self._beginning(self.name).text if self.name else ""
        self.values.layout.display = "" if self.name else "none"


_SIDE = 256  # pixels of the chosen picture


class ChosenPicture(VBox):
    """One picture, larger, and its settings; empty until a picture is shown."""

    def __init__(self, use: Callable[[Picture], None]):
        """Start empty. `use` gets the picture whose settings are wanted in the form."""
        self._page = HTML()
        about = "Put this picture's settings into the form"
        self._button = kit.button("Use these settings", lambda: use(self._picture), about)
        super().__init__(layout={"align_items": "flex-start"})

    def close(self) -> None:
        """Close its parts, which are no children while no picture is shown."""
        kit.close(self._page)
        kit.close(self._button)
        super().close()

    def show(self, chosen: Picture, text: str) -> None:
        """Show a picture and its settings; `text`: which one it is."""
        self._picture = chosen
        shown = kit.picture(kit.thumbnail(chosen.image, 2 * _SIDE), text, _SIDE)
        table = html_table(_settings(chosen).items(), named_rows=True)
        style = f"max-width:{_SIDE + 64}px;line-height:1.4"
        self._page.value = f'<div role="status" style="{style}">{shown}{table}</div>'
        self.children = [self._page, self._button]


def _settings(chosen: Picture) -> dict[str, object]:
    settings = chosen.settings
    step = "the result" if settings.training_step is None else settings.training_step
    shown = {kit.title(name): getattr(settings, name) for name in _FIELDS if name != "weight"} | {
        "Guidance": f"{settings.guidance:g}",
        "Training step": step if settings.rows_hash else "",
        "Size": f"{settings.size} x {settings.size}",
        "Base model": settings.base_model,
        "Safety checker": "made this picture black" if chosen.refused else "",
    }
    return {name: value for name, value in shown.items() if value != ""}


class SavedSheets(HBox):
    """A list of the concept's saved grids to reopen, and an upload for a file from elsewhere."""

    def __init__(self, concept: Concept, reopened: Callable[[Callable[[], grid.GridPlan]], None]):
        """Show the list. `reopened` gets a function that reads the chosen grid."""
        self._concept = concept
        about = "Grids in this concept's folder grids/, the newest first"
        self.list = kit.field(Dropdown, "Saved grids", about, _MIDDLE)

        def read() -> grid.GridPlan:
            return grid.reopen(concept.grids_folder / self.list.value)

        self.button = kit.button("Reopen", lambda: reopened(read), "Put its settings into the form")
        self.upload = kit.upload(
            "Reopen a file",
            "A grid's PNG file on your computer",
            lambda files: reopened(lambda: grid.reopen(*files[0])),
            accept=".png",
        )
        super().__init__([self.list, self.button, self.upload], layout={"flex_flow": "row wrap"})
        self.refresh()

    def refresh(self) -> None:
        """Read the concept's folder again, and choose the newest."""
        folder = self._concept.grids_folder
        names = [path.relative_to(folder).as_posix() for path in grid.saved_sheets(self._concept)]
        self.list.options = names or ["(none yet)"]
        self.list.index, self.button.disabled = 0, not names


class TurnForm(kit.View):
    """A slider from the word as learned (0) to its initializer (1), as `embedding.turned` makes it.

    *Draw* shows prompts with the word, and below them the same with the turned word. *Keep* makes that the
    result. Its static HTML is the last sheet.
    """

    def __init__(self, pipeline: Any, concept: Concept, step: int, prompts: list[str], **settings):
        """Show the form and its first sheet.

        Args:
            step: the training step whose rows are turned.
            prompts: with `{}` for the word.
            settings: others of `xy_grid`'s.
        """
        self._pipeline, self._concept, self._step = pipeline, concept, step
        self._prompts, self._settings = prompts, settings
        self.fraction = FloatSlider(0.2, min=0, max=1, step=0.05, description="Turn")
        self.sheet: grid.Sheet | None = None
        self.message, self.pictures = kit.Message(), HTML()
        self.draw = self.message.button("Draw", self._draw, "Draw both words", "primary")
        self.keep = self.message.button("Keep", self._keep, "Make the turned word the result")
        super().__init__([self.fraction, HBox([self.draw, self.keep]), self.message, self.pictures])
        self.message.run(self._draw)

    def _draw(self) -> str:
        fraction = self.fraction.value
        words = ("word", [self._concept.placeholder_token, self._turned_word(fraction)])
        self.sheet = grid.xy_grid(self._pipeline, ("prompt", self._prompts), words, **self._settings)
        self.pictures.value = self.sheet.image.as_html()
        return f"Above the result, below the word as learned, turned by {fraction:g}."

    def _turned_word(self, fraction: float) -> str:
        """The pipeline's word with these rows, added the first time."""
        word = f"<turned-{self._step}-{fraction:.2f}>"
        if word not in learned_tokens(self._pipeline.tokenizer):
            drawing.add_word(self._pipeline, word, turned(self._concept, self._step, fraction))
        return word

    def _keep(self) -> str:
        fraction = self.fraction.value
        use_step(self._concept, self._step, fraction)
        drawing.switch_step(self._pipeline, self._concept, None)
        return f"The result is turned by {fraction:g}." if fraction else "The result is the word as learned."

    def static_html(self) -> str:
        """The last sheet."""
        return self.pictures.value
