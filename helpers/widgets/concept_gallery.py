"""All concepts with their pictures; open one, rename it, delete it after a question, bring it back."""

import base64
import html
from collections.abc import Callable

import ipywidgets

from ..common.errors import UserError
from ..concept.manage import (
    delete_concept,
    empty_trash,
    erasing_question,
    in_trash,
    question,
    rename_concept,
    restore_concept,
    word_after,
)
from ..concept.overview import (
    ConceptTable,
    Overview,
    all_concepts,
    concept_names,
    concept_sheet,
    in_bytes,
    nothing_yet,
    open_concept,
    scores_in_words,
)
from .kit import SIDE, as_html, as_png

_ROW = {"flex_flow": "row wrap", "align_items": "flex-start"}


class ConceptGallery(ipywidgets.VBox):
    """What was taught, and what is on its way there. All that it shows is read from the folders.

    Where a widget can't live, as in a saved notebook on the web, it is a table and a still picture.
    """

    def __init__(self):
        self.message = ipywidgets.HTML()
        self.cards = ipywidgets.HBox(layout=_ROW)
        self.trash = ipywidgets.HBox(layout=_ROW)
        super().__init__([self.message, self.cards, self.trash])
        self.refresh()

    def refresh(self, message: str = "") -> None:
        """Read the folders anew, and say `message`."""
        concepts = all_concepts()
        self._say(message or ("" if concepts else nothing_yet()))
        self.cards.children = [ConceptCard(one, self._do) for one in concepts]
        self.trash.children = self._trash()

    def _do(self, action: Callable[[], str]) -> None:
        """A callback has nowhere to show an error but the widget itself."""
        try:
            message = action()
        except UserError as error:
            self._say(str(error))
        else:
            self.refresh(message)

    def _say(self, message: str) -> None:
        self.message.value = f'<div role="status">{html.escape(message)}</div>'

    def _trash(self) -> list[ipywidgets.Widget]:
        names = list(dict.fromkeys(path.name for path in reversed(in_trash())))
        free = [name for name in names if name not in concept_names()]
        back = [
            _button(f"Bring back {name}", lambda name=name: self._do(lambda: restore_concept(name)))
            for name in free
        ]
        return [*back, _button("Empty the trash", self._ask_to_empty)] if names else []

    def _ask_to_empty(self) -> None:
        self.trash.children = [
            ipywidgets.HTML(html.escape(erasing_question())),
            _button("Erase for good", lambda: self._do(lambda: empty_trash(sure=True)), "danger"),
            _button("Keep", self.refresh),
        ]

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and beside it table and picture for pages that have no kernel."""
        self.refresh()
        bundle = super()._repr_mimebundle_(**kwargs)
        sheet = concept_sheet()
        bundle["text/html"] = ConceptTable(all_concepts())._repr_html_()
        if not isinstance(sheet, ConceptTable):
            bundle["image/png"] = base64.b64encode(as_png(sheet)).decode()
            bundle["text/plain"] = sheet.alt
        return bundle


def _button(text: str, act: Callable[[], None], style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, button_style=style, layout={"width": "auto"})
    button.on_click(lambda _: act())
    return button


# One concept: how it looks, how far it has come, and the buttons that open, rename or delete it.
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
        self.open_button = _card_button("Open", f"Which notebook comes next for {name}", self._open)
        self.rename_button = _card_button(
            "Rename", f"Give {name} or its word another name", self._ask_to_rename
        )
        self.delete_button = _card_button(
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
        buttons = [_card_button(yes, "", act, style), _card_button("Cancel", "Change nothing", self._close)]
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


def _card_button(text: str, tooltip: str, act: Callable[[], None], style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(description=text, tooltip=tooltip, button_style=style, layout=_AUTO)
    button.on_click(lambda _: act())
    return button
