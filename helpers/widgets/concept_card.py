"""One concept: how it looks, how far it has come, and the buttons that open, rename or delete it."""

import html
from collections.abc import Callable

import ipywidgets

from ..overview import Overview, in_bytes, open_concept, scores_in_words
from ..rename import rename_concept, word_after
from ..trash import delete_concept, question
from .thumbnails import SIDE, as_html

Act = Callable[[Callable[[], str]], None]

_LAYOUT = {
    "width": f"{SIDE + 64}px",
    "margin": "4px",
    "padding": "6px",
    "border": "1px solid var(--jp-border-color1, #888888)",
}
_WIDE = {"width": "98%"}
_AUTO = {"width": "auto"}


class ConceptCard(ipywidgets.VBox):
    """A concept as its folder shows it. Below its buttons opens what was pressed last."""

    def __init__(self, shown: Overview, act: Act):
        """`act` gets each change to call: it shows the sentence that the change returns or raises."""
        self._shown, self._act = shown, act
        name = shown.name
        self.open_button = _button("Open", f"Which notebook comes next for {name}", self._open)
        self.rename_button = _button("Rename", f"Give {name} or its word another name", self._ask_to_rename)
        self.delete_button = _button(
            "Delete", f"Move {name} to the trash, after a question", self._ask_to_delete
        )
        self.rename_button.disabled = shown.state == "damaged"
        self.name = ipywidgets.Text(name, description="Name", layout=_WIDE)
        self.word = ipywidgets.Text(self._word(), description="Word", layout=_WIDE)
        self.name.observe(self._follow, "value")
        self.panel = ipywidgets.VBox()
        look = ipywidgets.HTML(_look(shown) + _facts(shown))
        super().__init__(
            [look, ipywidgets.HBox([self.open_button, self.rename_button, self.delete_button]), self.panel]
        )
        self.layout = _LAYOUT

    def _word(self) -> str:
        return self._shown.concept.placeholder_token if self._shown.concept else ""

    def _open(self) -> None:
        """The link is put into an output, where JupyterLab makes it open the notebook beside this one."""
        opened = open_concept(self._shown.name)
        data = {"text/html": opened._repr_html_(), "text/plain": str(opened)}
        output = {"output_type": "display_data", "data": data, "metadata": {}}
        self.panel.children = [ipywidgets.Output(outputs=(output,))]

    def _ask_to_rename(self) -> None:
        fields = [self.name, self.word] if self._shown.concept else [self.name]
        self._ask(fields, "Rename it", lambda: self._act(self._rename), "primary")

    def _rename(self) -> str:
        word = self.word.value.strip() if self._shown.concept else None
        return rename_concept(self._shown.name, self.name.value.strip(), word)

    def _follow(self, change) -> None:
        """The word goes with the name as it is typed, where it did so before."""
        if self.word.value == word_after(self._shown.name, change["old"], self._word()):
            self.word.value = word_after(self._shown.name, change["new"], self._word())

    def _ask_to_delete(self) -> None:
        asked = ipywidgets.HTML(f'<div role="alert">{html.escape(question(self._shown.name))}</div>')
        self._ask([asked], "Delete it", lambda: self._act(self._delete), "danger")

    def _delete(self) -> str:
        return delete_concept(self._shown.name, sure=True)

    def _ask(self, fields: list, yes: str, act: Callable[[], None], style: str) -> None:
        buttons = [_button(yes, "", act, style), _button("Cancel", "Change nothing", self._close)]
        self.panel.children = [*fields, ipywidgets.HBox(buttons)]

    def _close(self) -> None:
        self.panel.children = []


def _look(shown: Overview) -> str:
    if shown.cover:
        return as_html(shown.cover.image, f"{shown.name}: {shown.cover.alt}")
    return f'<div style="width:{SIDE}px;height:{SIDE}px;opacity:.6">No picture yet.</div>'


def _facts(shown: Overview) -> str:
    concept = shown.concept
    lines = [
        f"{concept.placeholder_token} on {concept.base_model.rsplit('/', 1)[-1]}" if concept else "",
        shown.problem or f"{shown.state}, {shown.pictures} picture(s)",
        scores_in_words(shown.scores),
        f"{in_bytes(shown.size)}, {shown.changed:%Y-%m-%d %H:%M}",
    ]
    small = "".join(f"<div>{html.escape(line)}</div>" for line in lines if line)
    style = "line-height:1.3;overflow-wrap:anywhere"
    return f'<div style="{style}"><b>{html.escape(shown.name)}</b>{small}</div>'


def _button(text: str, tooltip: str, act: Callable[[], None], style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, tooltip=tooltip, button_style=style, layout=_AUTO)
    button.on_click(lambda _: act())
    return button
