"""A concept's settings as a form. It checks and changes a `Concept`, and owns nothing."""

import functools
import html
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import ipywidgets
from pydantic import BaseModel

from ..common.errors import UserError
from ..concept.concept import HELP, Concept
from ..model.base_model import load_tokenizers, load_word_table
from ..model.tokens import check_words, collisions, nearest_words, show_tokens
from ..training.forecast import estimate, measure_pace
from .kit import RED, hint, problem

FIRST = (
    "what_to_teach",
    "placeholder_token",
    "initializer_token",
    "vectors",
    "base_model",
    "own_templates",
)
GROUPS = {
    "Pictures": ("resolution", "interpolation", "center_crop", "random_crop", "flip_probability"),
    "Length of the run": (
        "max_train_steps",
        "stop_when_learned",
        "evaluate_every",
        "sample_every",
        "checkpoint_every",
        "seed",
    ),
    "Optimizer": (
        "train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "scale_lr",
        "lr_scheduler",
        "lr_warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "use_8bit_adam",
    ),
    "Loss": ("snr_gamma", "norm", "first_timestep", "last_timestep", "timesteps_per_picture"),
    "Machine": (
        "num_processes",
        "mixed_precision",
        "gradient_checkpointing",
        "compile",
        "quantize",
        "save_pipeline",
    ),
}
_WORDS = ("placeholder_token", "initializer_token", "vectors", "base_model")
_ASK_MUCH = ("base_model",)  # the hub is asked for it: when the field is left, not at each key
_LAYOUT = {"style": {"description_width": "200px"}, "layout": {"width": "420px", "flex": "0 0 auto"}}


class SettingsForm(ipywidgets.VBox):
    """The few settings that matter first, the hyperparameters folded away below.

    Each change is checked as one types, and goes into `concept` at once. One that can't be used is
    marked at its field, with its sentence, and the concept keeps what it had. Between the two parts stand
    how the tokenizer reads the words, and what the training will need here. `Save` writes `concept.json`.
    On a page without a kernel the form is a table of the settings.
    """

    def __init__(self, concept: Concept):
        self._concept, self._fields = concept, {}
        self._wrong: set[str] = set()
        self._words, self._needs = WordPanel(concept), NeedsPanel(concept)
        self._message = ipywidgets.HTML()
        save = ipywidgets.Button(description="Save", button_style="primary", tooltip="Write concept.json")
        save.on_click(lambda _: self._do(self._save))
        first = [self._field(concept, name) for name in FIRST]
        groups = [
            ipywidgets.VBox([self._field(concept.training, name) for name in names])
            for names in GROUPS.values()
        ]
        more = ipywidgets.Accordion(groups, titles=tuple(GROUPS))
        super().__init__([*first, self._words, self._needs, more, save, self._message])
        self._look()

    def _field(self, part: BaseModel, name: str) -> ipywidgets.Widget:
        field = _widget(type(part).model_fields[name].annotation, getattr(part, name))
        field.description, field.tooltip = name, HELP[name]
        field.continuous_update = name not in _ASK_MUCH
        beside = ipywidgets.HTML(hint(HELP[name]), layout={"flex": "1 1 0%", "min_width": "120px"})
        field.observe(functools.partial(self._changed, part, name, beside), "value")
        self._fields[name] = field
        return ipywidgets.HBox([field, beside], layout={"align_items": "center"})

    def _changed(self, part: BaseModel, name: str, beside: ipywidgets.HTML, change: dict[str, Any]) -> None:
        value = _value(type(part).model_fields[name].annotation, change["new"])
        why = self._do(lambda: self._set(part, name, value))
        self._wrong = self._wrong | {name} if why else self._wrong - {name}
        beside.value = problem(why) if why else hint(HELP[name])
        change["owner"].layout.border = f"1px solid {RED}" if why else ""
        self._look(words=name in _WORDS, needs=not why)

    def _set(self, part: BaseModel, name: str, value: Any) -> str:
        in_training = part is self._concept.training
        checked = self._concept.changed(**({"training": {name: value}} if in_training else {name: value}))
        if name in _WORDS:
            check_words(checked, self._words.tokenizers(checked.base_model))
        setattr(part, name, getattr(checked.training if in_training else checked, name))
        return f"{name} is set."

    def _look(self, words: bool = True, needs: bool = True) -> None:
        """What follows from the settings; the words as they stand in their fields, right or wrong."""
        if words:
            self._words.show(self._fields["placeholder_token"].value, self._fields["initializer_token"].value)
        if needs:
            self._needs.show()

    def _save(self) -> str:
        path = self._concept.save()
        left_out = f" What is marked is left out: {', '.join(sorted(self._wrong))}." if self._wrong else ""
        return f"Saved: {path.parent.name}/{path.name}.{left_out}"

    def _do(self, action: Callable[[], str]) -> str:
        """A callback has nowhere to show an error but the widget itself; the error is returned, too."""
        try:
            self._message.value = html.escape(action())
        except UserError as error:
            self._message.value = problem(str(error))
            return str(error)
        return ""

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and beside it a plain table for pages that have no kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        settings = self._concept.model_dump()
        shown = {name: settings[name] for name in ("name", *FIRST)} | settings["training"]
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in shown.items()
        )
        bundle["text/html"] = f"<table>{rows}</table>"
        return bundle


def _widget(kind: Any, value: Any) -> ipywidgets.Widget:
    """A field for a setting of that type. Numbers are typed as text, so that `5e-3` and nothing both go."""
    if kind is bool:
        return ipywidgets.Checkbox(value=value, **_LAYOUT)
    if get_origin(kind) is Literal:
        return ipywidgets.Dropdown(options=get_args(kind), value=value, **_LAYOUT)
    if kind == list[str]:
        hint = "one sentence a line, {} is your word"
        return ipywidgets.Textarea("\n".join(value), placeholder=hint, continuous_update=False, **_LAYOUT)
    return ipywidgets.Text("" if value is None else str(value), continuous_update=False, **_LAYOUT)


def _value(kind: Any, given: Any) -> Any:
    """What a field holds, as the setting takes it; pydantic turns text into numbers."""
    if kind == list[str]:
        return [line for line in given.splitlines() if line.strip()]
    return None if given == "" and type(None) in get_args(kind) else given


# What follows from a concept's settings, beside the form: how its words are read, what training needs.


class WordPanel(ipywidgets.HTML):
    """The words as the tokenizer splits them, words near to them, and what the placeholder collides with."""

    def __init__(self, concept: Concept):
        super().__init__()
        self._concept = concept
        self.tokenizers = functools.cache(load_tokenizers)  # asked at each key
        self._table = functools.cache(load_word_table)

    def show(self, placeholder: str, initializer: str) -> None:
        """Show the words as they were typed, which the concept may have refused."""
        concept = self._concept
        tokenizer = self.tokenizers(concept.base_model)[0]
        words = [word for word in (placeholder, *concept.placeholder_tokens[1:], initializer) if word.strip()]
        near = nearest_words(tokenizer, initializer, self._table(concept.base_model))
        said = [f"Words of one token near “{initializer}”: {', '.join(near)}."] if near else []
        self.value = (
            f'<div role="status">{show_tokens(tokenizer, words).data}'
            + "".join(f"<div>{html.escape(sentence)}</div>" for sentence in said)
            + "".join(problem(sentence) for sentence in collisions(concept, tokenizer))
            + "</div>"
        )


class NeedsPanel(ipywidgets.VBox):
    """Memory and time of the training here; the time is measured when the button is pressed."""

    def __init__(self, concept: Concept):
        self._concept, self.said = concept, ipywidgets.HTML()
        self.measure = ipywidgets.Button(
            description="Measure the time",
            tooltip="Takes a few steps in another process; it loads the model first",
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self.measure.on_click(self._measure)
        super().__init__([self.said, self.measure], layout={"margin": "6px 0"})

    def show(self) -> None:
        try:
            self.said.value = f'<div role="status">{html.escape(str(estimate(self._concept)))}</div>'
        except UserError as error:
            self.said.value = problem(str(error))

    def _measure(self, _button) -> None:
        self.measure.disabled = True
        self.said.value = hint("Measuring: the model is loaded in another process, which takes a few steps…")
        try:
            measure_pace(self._concept)
            self.show()
        except UserError as error:
            self.said.value = problem(str(error))
        finally:
            self.measure.disabled = False
