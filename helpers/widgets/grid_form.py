"""Draw with a learned word: a prompt, its settings, and a grid over any two of them."""

import contextlib
import functools
import hashlib
import html
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets
from tqdm.notebook import tqdm_notebook
from traitlets import TraitError

from ..common.sheets import html_table
from ..concept.concept import Concept
from ..concept.embedding import saved_steps
from ..inference.examples import MINIATURE_KNOWS, examples_for, unknown_words
from ..inference.grid import (
    Sheet,
    a_few_steps,
    draw_plan,
    make_plan,
    reopen,
    saved_sheets,
)
from ..inference.grid_plan import RESULT, Axis, GridPlan
from ..inference.pipeline import check, check_prompt, check_same_concept, check_same_word
from ..inference.png import SCHEDULERS, Picture
from .kit import (
    ROW,
    Message,
    PictureButtons,
    View,
    button,
    error_of,
    lines,
    mark_wrong,
    picture,
    run_in_thread,
    thumbnail,
    upload,
)

_NAMED = {"description_width": "110px"}
_WIDE = {"layout": {"width": "min(900px, 98%)"}, "style": _NAMED}
_MIDDLE = {"layout": {"width": "min(480px, 98%)"}, "style": _NAMED}
_NARROW = {"layout": {"width": "290px"}, "style": _NAMED}
_BESIDE_FIELDS = {"margin": "0 0 4px 118px"}
_HELP = {
    "prompt": "What to draw; (word:1.3) makes a word count for more, (word:0.7) for less",
    "negative_prompt": "What the picture moves away from",
    "seed": "Where the random numbers start: the same seed, the same picture",
    "guidance": "How much the prompt counts; at 1, only as much as by itself",
    "steps": "The number of steps in which the noise is removed",
    "scheduler": "The rule by which the noise is removed",
    "weight": "How much your word counts in the prompt, 0 to 2; at 1, like any other",
    "training_step": "The word as training kept it at that step",
}
_KEPT = ("size", "batch_size", "columns")  # of a plan, though the form has no fields for them


class GridForm(View):
    """A form for `xy_grid`. What it draws is saved into `grids/yours/` at once.

    A picture that is pressed shows what it was made with; a saved grid can be reopened. On a page without
    a kernel the form is the last grid, or the line of Python that draws the same.
    """

    def __init__(self, pipeline: Any, concept: Concept, prompt: str, **settings):
        """Show the form with `prompt` in it; `settings` are more of `xy_grid`'s."""
        self._pipeline, self._concept = pipeline, concept
        self.sheet: Sheet | None = None
        self.drawing: threading.Thread | None = None
        self.fields, self.unknown = _fields(concept), ipywidgets.HTML(layout=_BESIDE_FIELDS)
        self.x, self.y = AxisField("X", self._beginning), AxisField("Y", self._beginning)
        self.draw = button("Draw", self._start, "Draw the grid", "primary")
        self.stop = button("Stop", self._ask_to_stop, "End after the step that is being drawn")
        self._stopped = threading.Event()
        self._set_running(False)
        self._progress, self.message = ipywidgets.VBox(), Message()
        self.pictures, self.chosen = PictureButtons(self._choose), ChosenPicture(self._use)
        self.saved = SavedSheets(concept, self._reopen)
        buttons = ipywidgets.HBox([self.draw, self.stop])
        state = ipywidgets.VBox([self._progress, self.message])
        seen = ipywidgets.HBox([self.pictures, self.chosen], layout=ROW)
        super().__init__([*self._rows(), self.x, self.y, buttons, state, seen, self.saved])
        self.fill(make_plan(pipeline, ("seed", range(4)), prompt=prompt, **settings))
        self._watch()

    @property
    def plan(self) -> GridPlan:
        """What the form asks for.

        Raises:
            UserError: an axis can't be read.
        """
        x, y = self.x.read(), self.y.read()
        values = {name: field.value for name, field in self.fields.items()}
        if values["training_step"] == RESULT:
            values["training_step"] = None
        if x is None:  # one column, or the seeds as they are
            x, y = (y, None) if y and y.name == "seed" else (Axis.make("seed", [values["seed"]]), y)
        pairs = [(axis.name, axis.values) if axis else None for axis in (x, y)]
        return make_plan(self._pipeline, *pairs, **self._kept, **values)

    def fill(self, plan: GridPlan) -> None:
        """Put the form back to a plan; what it has no choice for stays as it is."""
        self._filling = True
        for name, field in self.fields.items():
            with contextlib.suppress(TraitError):
                value = getattr(plan, name)
                field.value = RESULT if value is None else value  # a list can't hold None
        self.x.fill(plan.x)
        self.y.fill(plan.y)
        self._filling = False
        self._kept = {name: getattr(plan, name) for name in _KEPT}
        self._mark()

    def _rows(self) -> list[ipywidgets.Widget]:
        word = self._concept.placeholder_token
        prompt, negative, *others = self.fields.values()
        buttons = [
            self._puts(word, prompt, "the prompt"),
            self._puts(f"({word}:1.3)", prompt, "the prompt"),
        ]
        return [
            prompt,
            self.unknown,
            ipywidgets.HBox(buttons, layout=_BESIDE_FIELDS),
            negative,
            ipywidgets.HBox([self._puts(word, negative, "the negative prompt")], layout=_BESIDE_FIELDS),
            *others,
        ]

    def _puts(self, words: str, field: ipywidgets.Textarea, where: str) -> ipywidgets.Button:
        def put() -> None:
            field.value = f"{field.value} {words}".strip()

        return button(f"+ {words}", put, f"Put {words} at the end of {where}")

    def _watch(self) -> None:
        """Say at once what can't be used, and mark the field that it stands in."""
        for name in ("prompt", "negative_prompt"):
            self.fields[name].observe(self._typed, "value")
        for axis in (self.x, self.y):
            axis.choice.observe(self._laid_out_anew, "value")
            axis.values.observe(self._laid_out_anew, "value")

    def _laid_out_anew(self, change) -> None:
        if not self._filling:
            self._kept["columns"] = None
            self._typed(change)

    def _typed(self, _change) -> None:
        if not self._filling:
            self.message.do(self._check)
            self._mark()

    def _check(self) -> None:
        check(self._pipeline, self.plan.cells())

    def _mark(self) -> None:
        """A setting that differs along an axis has its values there; what can't be read has a red border."""
        for name, field in self.fields.items():
            field.disabled = name in (self.x.name, self.y.name)
        for name in ("prompt", "negative_prompt"):
            words = self.fields[name].value.replace("{}", self._concept.placeholder_token)
            why = error_of(functools.partial(check_prompt, self._pipeline, words))
            mark_wrong(self.fields[name], why)
        for axis in (self.x, self.y):
            mark_wrong(axis.values, error_of(axis.read))
        typed = [axis.values.value for axis in (self.x, self.y) if axis.name in ("prompt", "negative_prompt")]
        typed += [self.fields[name].value for name in ("prompt", "negative_prompt")]
        self.unknown.value = self._on_unknown_words(" ".join(typed))

    def _on_unknown_words(self, typed: str) -> str:
        """Words that the model never saw are no mistake, but they draw nothing."""
        words = unknown_words(self._concept, self._pipeline.tokenizer, typed)
        if not words:
            return ""
        unknown = lines(f"The miniature does not know: {', '.join(words)}.")
        known = lines(*(f"{kind}: {names}" for kind, names in MINIATURE_KNOWS.items()))
        return f'<div role="status">{unknown}<details><summary>What it knows</summary>{known}</details></div>'

    def _beginning(self, name: str) -> Axis:
        """Values for an axis that was just chosen."""
        examples = examples_for(self._concept)
        values = {
            "seed": range(4),
            "prompt": [self.fields["prompt"].value, *examples.scenes[:2]],
            "negative_prompt": ["", "a photo"],
            "guidance": [1, 2, 4, 8],
            "steps": [5, 10, 25],
            "scheduler": SCHEDULERS,
            "weight": [0.5, 1, 1.5],
            "training_step": [*a_few_steps(self._concept, 3), None],
            "word": list(filter(None, [self._concept.initializer_token, self._concept.placeholder_token])),
        }
        return Axis.make(name, values[name])

    def _start(self) -> None:
        self._set_running(True)
        self._stopped.clear()
        self.message.say()
        self.drawing = run_in_thread(self.message, self._draw, lambda: self._set_running(False))

    def _set_running(self, is_running: bool) -> None:
        self.draw.disabled, self.stop.disabled = is_running, not is_running

    def _ask_to_stop(self) -> None:
        self._stopped.set()
        self.message.say("Stopping…")

    def _draw(self) -> str:
        plan, remarks = self.plan, []
        steps = sum(cell.steps for cell in plan.cells())
        with _Bar(total=steps, desc="Drawing", unit=" steps", display=False, leave=False) as bar:
            bar.stopped = self._stopped
            self._progress.children = [bar.container]
            try:
                # The same grid keeps one file, another gets its own.
                asked = plan.model_dump_json(exclude={"rows_hashes"})
                name = f"yours/{plan.title}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
                say = remarks.append
                self.sheet = draw_plan(self._pipeline, plan, name, bar, say)
            finally:
                self._progress.children = []
        path = self.sheet.save(self._concept)
        self.saved.refresh()
        self._show(self.sheet)
        word = self._concept.placeholder_token
        if not any(word in cell.prompt for cell in plan.cells()):
            remarks.append(f"No prompt had your word in it: put {word} where it belongs, and draw again.")
        saved = f"Saved: {path.relative_to(self._concept.folder.parent).as_posix()}."
        return " ".join([saved, *remarks])

    def _show(self, sheet: Sheet) -> None:
        self.chosen.clear()
        plan, images = sheet.plan, [picture.image for picture in sheet.pictures]
        self.pictures.show(images, plan.labels, *plan.edges)

    def _choose(self, number: int) -> None:
        self.chosen.show(self.sheet.pictures[number], self.sheet.plan.labels[number])

    def _use(self, picture: Picture) -> None:
        """Put one picture's settings into the form; a weight of the word is in its prompt."""
        settings = picture.settings
        own = {name: getattr(settings, name) for name in _HELP if name != "weight"}
        axes = {"x": Axis.make("seed", [settings.seed]), "y": None, "columns": None}
        self.message.do(lambda: self._filled(self.sheet.plan.model_copy(update=own | axes | {"weight": 1.0})))

    def _reopen(self, read: Callable[[], GridPlan]) -> None:
        self.message.do(lambda: self._filled(read(), is_another=True))

    def _filled(self, plan: GridPlan, is_another: bool = False) -> str:
        check_same_concept(self._pipeline, plan.hashes)  # else the form stays as it is
        self.fill(plan.with_word(self._concept.placeholder_token))
        if is_another:  # the pictures below the form would be of the one before
            self.sheet = None
            self.pictures.clear()
            self.chosen.clear()
        check_same_word(self._pipeline, plan.hashes)
        return "Now Draw makes the same again, or change something first."

    def close(self) -> None:
        """Take the form away, and let go of the pipeline: what ipywidgets keeps of a form would hold it."""
        self._pipeline = None
        super().close()

    def still(self) -> str:
        """The line of Python that draws the same, and the last grid."""
        code = f"<pre>{html.escape(_as_code(self.plan))}</pre>"
        return code + (self.sheet.image.as_html() if self.sheet else "")


class _Bar(tqdm_notebook):
    """A bar that ends the drawing whose steps it counts, where `stopped` is set."""

    stopped: threading.Event

    def update(self, n: int = 1) -> None:
        super().update(n)
        if self.stopped.is_set():
            raise KeyboardInterrupt


def _fields(concept: Concept) -> dict[str, ipywidgets.Widget]:
    """A field for each setting that all pictures share, the two prompts first."""
    steps = [("the result", RESULT), *((f"step {step}", step) for step in saved_steps(concept))]
    fields = {
        "prompt": ipywidgets.Textarea(rows=2, continuous_update=False, **_WIDE),
        "negative_prompt": ipywidgets.Textarea(rows=2, continuous_update=False, **_WIDE),
        "seed": ipywidgets.IntText(**_NARROW),
        "guidance": ipywidgets.FloatText(step=0.5, **_NARROW),
        "steps": ipywidgets.IntText(**_NARROW),
        "scheduler": ipywidgets.Dropdown(options=list(SCHEDULERS), **_NARROW),
        "weight": ipywidgets.FloatText(step=0.1, **_NARROW),
        "training_step": ipywidgets.Dropdown(options=steps, **_NARROW),
    }
    for name, field in fields.items():
        field.description, field.tooltip = _title(name), _HELP[name]
    return fields


def _title(name: str) -> str:
    """A setting's name as the page has it."""
    return name.replace("_", " ").capitalize()


def _as_code(plan: GridPlan) -> str:
    """The same without a form."""
    settings = {
        name: getattr(plan, name)
        for name in (*_HELP, "size")
        if name not in {axis.name for axis in plan.axes}
    }
    given = "".join(f"    {name}={value!r},\n" for name, value in settings.items())
    axes = "".join(
        f"    {side}={(axis.name, list(axis.values))!r},\n"
        for side, axis in zip("xy", plan.axes, strict=False)
    )
    return f"xy_grid(\n    pipeline,\n{axes}{given})"


# A setting chosen for an axis of a grid, and the values that it takes.
NOTHING = "nothing"
_CHOICES = {NOTHING: None} | {_title(name): name for name in _HELP} | {"Before and after": "word"}


class AxisField(ipywidgets.VBox):
    """What differs along an axis. Choosing a setting fills in values for it to begin with."""

    def __init__(self, title: str, beginning: Callable[[str], Axis]):
        """Show the field. `beginning` gives the axis of a setting's name, as long as a person typed none."""
        self._beginning = beginning
        self.choice = ipywidgets.Dropdown(options=list(_CHOICES), description=f"{title} axis", **_NARROW)
        self.choice.tooltip = f"What differs along {title}"
        self.values = ipywidgets.Textarea(
            description=f"{title} values", rows=2, continuous_update=False, **_MIDDLE
        )
        self.values.tooltip = "With commas between them; prompts each on its own line; 0-4 is 0, 1, 2, 3, 4"
        self.choice.observe(self._begin, "value")
        super().__init__([self.choice, self.values])
        self._begin()

    @property
    def name(self) -> str | None:
        """The setting that differs; None: nothing does."""
        return _CHOICES[self.choice.value]

    def read(self) -> Axis | None:
        """The axis as it was typed.

        Raises:
            UserError: a value can't be read.
        """
        return Axis.typed(self.name, self.values.value) if self.name else None

    def fill(self, axis: Axis | None) -> None:
        """Show an axis."""
        name = axis.name if axis else None
        self.choice.value = next(title for title, choice in _CHOICES.items() if choice == name)
        self.values.value = axis.text if axis else ""

    def _begin(self, _change=None) -> None:
        self.values.value = self._beginning(self.name).text if self.name else ""
        self.values.layout.display = "" if self.name else "none"


# One picture, larger, and what it was made with.
_SIDE = 256


class ChosenPicture(ipywidgets.VBox):
    """Empty until a picture is shown."""

    def __init__(self, use: Callable[[Picture], None]):
        """Start empty. `use` gets the picture whose settings a person wants."""
        self._picture: Picture | None = None
        self.page = ipywidgets.HTML()
        put = "Put this picture's settings into the form"
        self.button = button("Use these settings", lambda: use(self._picture), put)
        super().__init__(layout={"align_items": "flex-start"})

    def show(self, chosen: Picture, text: str) -> None:
        """Show a picture and its settings; `text` says which it is."""
        self._picture = chosen
        shown = picture(thumbnail(chosen.image, 2 * _SIDE), text, _SIDE)
        table = html_table(_settings(chosen).items(), named_rows=True)
        style = f"max-width:{_SIDE + 64}px;line-height:1.4"
        self.page.value = f'<div role="status" style="{style}">{shown}{table}</div>'
        self.children = [self.page, self.button]

    def clear(self) -> None:
        """Show nothing."""
        self.children = []


def _settings(chosen: Picture) -> dict[str, object]:
    settings = chosen.settings
    shown = {_title(name): getattr(settings, name) for name in _HELP if name != "weight"}
    shown["Guidance"] = f"{settings.guidance:g}"
    step = "the result" if settings.training_step is None else settings.training_step
    shown["Training step"] = step if settings.rows_hash else ""
    shown["Size"] = f"{settings.size} x {settings.size}"
    shown["Base model"] = settings.base_model
    shown["Safety checker"] = "made this picture black" if chosen.refused else ""
    return {name: value for name, value in shown.items() if value != ""}


# Choose a grid that was saved: of the concept, or a file from elsewhere.
_NONE = "(none yet)"


class SavedSheets(ipywidgets.HBox):
    """A list of the concept's saved grids with a button, and a way to bring a file."""

    def __init__(self, concept: Concept, reopened: Callable[[Callable[[], GridPlan]], None]):
        """Show the list. `reopened` gets what reads the chosen grid, and shows a `UserError` of it."""
        self._concept, self._reopened = concept, reopened
        self._list = ipywidgets.Dropdown(description="Saved grids", **_MIDDLE)
        self._list.tooltip = "Grids in this concept's folder grids/, the newest first"
        self.button = button("Reopen", self._pressed, "Put its settings into the form")
        about = "A grid's PNG file on your computer"
        self.upload = upload(
            "Reopen a file", about, lambda files: reopened(lambda: reopen(*files[0])), accept=".png"
        )
        super().__init__([self._list, self.button, self.upload], layout={"flex_flow": "row wrap"})
        self.refresh()

    def _pressed(self) -> None:
        path = self._concept.grids_folder / self._list.value
        self._reopened(lambda: reopen(path))

    def refresh(self) -> None:
        """Read the concept's folder anew; the newest is chosen."""
        folder = self._concept.grids_folder
        names = [path.relative_to(folder).as_posix() for path in saved_sheets(self._concept)]
        self._list.options = names or [_NONE]
        self._list.index = 0
        self.button.disabled = not names
