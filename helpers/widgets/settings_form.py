"""A concept's settings as a form that checks and changes a `Concept`."""

import functools
from typing import Any, Literal, get_args, get_origin

from ipywidgets import HTML, Accordion, Checkbox, Dropdown, HBox, Text, Textarea, VBox, Widget
from pydantic import BaseModel

from ..common.errors import UserError
from ..common.sheets import html_table
from ..concept.concept import Concept, saved_concepts, setting_groups, setting_help
from ..dataset.dataset import checked_ids, tokenizers_with_word
from ..model.base_model import load_tokenizers, load_word_table
from ..model.tokens import check_words, collisions, nearest_words, show_tokens
from ..training.forecast import estimate
from . import kit

FIRST = ("what_to_teach", "placeholder_token", "initializer_token", "vectors", "base_model", "own_templates")
_WORDS = ("placeholder_token", "initializer_token", "vectors", "base_model")
_LAYOUT = {"style": {"description_width": "200px"}, "layout": {"width": "420px", "flex": "0 0 auto"}}
_WHEN_LEFT = {"continuous_update": False} | _LAYOUT  # half a value is no value


class SettingsForm(kit.View):
    """The settings that matter most, and below them the hyperparameters, folded away.

    A value is checked at Enter or when its field is left, and then goes into `concept`. One that can't be
    used is marked at its field with the reason: the concept keeps its old value, and nothing can be saved
    until it is corrected. In between are the tokens of the words, and the memory and time of the training.
    `Save` writes `concept.json`. Its static HTML is a table.
    """

    def __init__(self, concept: Concept):
        self._concept, self._wrong, self._read = concept, set(), concept.model_copy(deep=True)
        self._is_saved = concept.name in saved_concepts()
        self._fields: dict[str, Widget] = {}
        self._hints: dict[str, HTML] = {}
        self._word_panel, self._message = WordPanel(concept), kit.Message()
        self.needs = kit.Message(layout={"margin": "6px 0"})
        self.save = self._message.button("Save", self._save, "Write concept.json", "primary")
        groups = [VBox(list(map(self._field, names))) for names in setting_groups().values()]
        more = Accordion(groups, titles=tuple(setting_groups()))
        first = map(self._field, FIRST)
        super().__init__([*first, self._word_panel, self.needs, more, self.save, self._message])
        self._show_consequences()

    def _field(self, name: str) -> Widget:
        part = _part(self._concept, name)
        field = _widget(type(part).model_fields[name].annotation, getattr(part, name))
        field.description, field.tooltip = name, setting_help(name)
        field.observe(lambda _: self._changed(name), "value")
        beside = HTML(kit.hint(setting_help(name)), layout={"flex": "1 1 0%", "min_width": "120px"})
        self._fields[name], self._hints[name] = field, beside
        return HBox([field, beside], layout={"align_items": "center"})

    def _changed(self, name: str) -> None:
        why = self._message.run(lambda: self._set(name))
        self._mark(name, why)
        if not why:  # what was wrong beside the old value may be right beside the new one
            for other in self._wrong.copy():
                self._mark(other, kit.error_of(lambda other=other: self._set(other)))
        self.save.disabled = bool(self._wrong)
        self._show_consequences()

    def _set(self, name: str) -> str:
        part = _part(self._concept, name)
        value = _value(type(part).model_fields[name].annotation, self._fields[name].value)
        in_training = part is self._concept.training
        checked = self._concept.changed(**({"training": {name: value}} if in_training else {name: value}))
        if name in _WORDS:
            check_words(checked, self._word_panel.tokenizers(checked.base_model))
        if name in (*_WORDS, "own_templates") and checked.own_templates:
            checked_ids(checked, tokenizers_with_word(checked), checked.own_templates)
        setattr(part, name, getattr(checked.training if in_training else checked, name))
        return f"{name} is set."

    def _mark(self, name: str, why: str) -> None:
        self._wrong = self._wrong | {name} if why else self._wrong - {name}
        self._hints[name].value = kit.problem(why) if why else kit.hint(setting_help(name))
        kit.mark_wrong(self._fields[name], why)

    def _show_consequences(self) -> None:
        """Show the tokens of the words, as typed, right or wrong, and what the training will need."""
        self._word_panel.show(
            self._fields["placeholder_token"].value, self._fields["initializer_token"].value
        )
        self.needs.run(lambda: estimate(self._concept))

    def _save(self) -> str:
        taken = self._take_what_was_saved_since()
        if self._wrong:  # of that, or the click came before the button was off
            marked = ", ".join(sorted(self._wrong))
            raise UserError(f"Nothing was saved: correct the marked fields first: {marked}.")
        path = self._concept.save()
        self._read, self._is_saved = self._concept.model_copy(deep=True), True
        others = f" Changed elsewhere meanwhile: {', '.join(taken)}." if taken else ""
        return f"Saved: {path.parent.name}/{path.name}.{others}"

    def _take_what_was_saved_since(self) -> list[str]:
        """Fill in what another notebook has saved, but for what was changed here, and return its names."""
        name = self._concept.name
        if not self._is_saved and name not in saved_concepts():
            return []
        there, taken = Concept.load(name), []  # or a sentence: it was renamed or deleted
        concepts = (self._read, self._concept, there)
        for name in [name for name in self._fields if name not in self._wrong]:
            before, here, now = (getattr(_part(one, name), name) for one in concepts)
            if before == here != now:
                self._fields[name].value = _shown(now)
                taken.append(name)
        for name in ("earlier_words", "learned_elsewhere"):
            setattr(self._concept, name, getattr(there, name))
        return taken

    def static_html(self) -> str:
        """A table of the settings."""
        settings = self._concept.model_dump()
        shown = {name: settings[name] for name in ("name", *FIRST)} | settings["training"]
        return html_table(shown.items())


def _part(concept: Concept, name: str) -> BaseModel:
    return concept if name in FIRST else concept.training


def _widget(kind: Any, value: Any) -> Widget:
    """A field for a setting of that type. Numbers are text, so that `5e-3` and nothing can be typed."""
    if kind is bool:
        return Checkbox(value=value, **_LAYOUT)
    if get_origin(kind) is Literal:
        return Dropdown(options=get_args(kind), value=value, **_LAYOUT)
    if kind == list[str]:
        example = "one sentence a line, {} is your word"
        return Textarea(_shown(value), placeholder=example, **_WHEN_LEFT)
    return Text(_shown(value), **_WHEN_LEFT)


def _shown(value: Any) -> Any:
    """A setting's value as its field has it."""
    if isinstance(value, list):
        return "\n".join(value)
    return value if isinstance(value, bool) else "" if value is None else str(value)


def _value(kind: Any, given: Any) -> Any:
    """A field's value for its setting; pydantic turns text into numbers."""
    if kind == list[str]:
        return [line for line in given.splitlines() if line.strip()]
    return None if given == "" and type(None) in get_args(kind) else given


class WordPanel(HTML):
    """The tokens of the words, words near the initializer, and what the placeholder collides with."""

    def __init__(self, concept: Concept):
        super().__init__()
        self._concept = concept
        self.tokenizers = functools.cache(load_tokenizers)
        self._table = functools.cache(load_word_table)

    def show(self, placeholder: str, initializer: str) -> None:
        """Show the words as typed, also if the concept has refused them."""
        concept = self._concept
        tokenizer = self.tokenizers(concept.base_model)[0]
        words = [word for word in (placeholder, *concept.placeholder_tokens[1:], initializer) if word.strip()]
        near = nearest_words(tokenizer, initializer, self._table(concept.base_model))
        nearby = kit.lines(f"Words of one token near “{initializer}”: {', '.join(near)}." if near else "")
        problems = "".join(map(kit.problem, collisions(concept, tokenizer)))
        table = show_tokens(tokenizer, words).data
        self.value = f'<div role="status">{table}{nearby}{problems}</div>'
