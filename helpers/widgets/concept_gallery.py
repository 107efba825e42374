"""All concepts with their pictures; open one, rename it, delete it after a question, bring it back."""

import base64
import html
from collections.abc import Callable

import ipywidgets

from ..errors import UserError
from ..overview import ConceptTable, all_concepts, concept_names, concept_sheet, nothing_yet
from ..trash import empty_trash, erasing_question, in_trash, restore_concept
from .concept_card import ConceptCard
from .thumbnails import as_png

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
