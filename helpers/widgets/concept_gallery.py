"""All concepts with their pictures: open one, rename it, delete it after a question, draw with its word."""

import functools
import html
import threading
from collections.abc import Callable

import ipywidgets

from ..common.sheets import Table, counted
from ..concept.concept import Concept
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
    Overview,
    all_concepts,
    concept_names,
    concept_sheet,
    concept_table,
    in_bytes,
    nothing_yet,
    open_concept,
    scores_in_words,
)
from ..inference.examples import examples_for, own_prompt
from ..inference.pipeline import pipeline_with_word
from .grid_form import GridForm
from .kit import CARD, ROW, SIDE, Message, View, ask, button, lines, picture, run_in_thread

_CARD = CARD | {"width": f"{SIDE + 64}px"}
_WIDE = {"width": "98%"}


class ConceptGallery(View):
    """What was taught, and what is on its way there. All that it shows is read from the folders.

    Where a widget can't live, as in a saved notebook on the web, it is a table and a still picture.
    """

    def __init__(self, draw: Callable[[str], None] | None = None):
        """Show all concepts.

        Args:
            draw: gets the name of the concept to draw with. Then this is all that the cards offer: nothing
                is renamed or deleted from there.
        """
        self._draw, self.message = draw, Message()
        self.cards, self.trash = ipywidgets.HBox(layout=ROW), ipywidgets.HBox(layout=ROW)
        super().__init__([self.message, self.cards, self.trash])
        self.refresh()

    def refresh(self) -> None:
        """Read the folders anew."""
        self._fill()
        self.message.say("" if self.cards.children else nothing_yet())

    def _do(self, action: Callable[[], str]) -> None:
        if not self.message.do(action):
            self._fill()

    def _fill(self) -> None:
        self.cards.children = [ConceptCard(one, self._do, self._draw) for one in all_concepts()]
        self.trash.children = [] if self._draw else self._trash()

    def _trash(self) -> list[ipywidgets.Widget]:
        names = list(dict.fromkeys(path.name for path in reversed(in_trash())))
        free = [name for name in names if name not in concept_names()]
        back = [
            button(f"Bring back {name}", lambda name=name: self._do(lambda: restore_concept(name)))
            for name in free
        ]
        return [*back, button("Empty the trash", self._ask_to_empty)] if names else []

    def _ask_to_empty(self) -> None:
        erase = functools.partial(self._do, functools.partial(empty_trash, sure=True))
        self.trash.children = ask(erasing_question(), "Erase for good", erase, "Keep", self.refresh)

    def still(self) -> str:
        """A table, and the concepts' pictures as one."""
        self.refresh()
        sheet = concept_sheet()
        table = concept_table()._repr_html_()
        return table + ("" if isinstance(sheet, Table) else sheet.as_html())


class ConceptCard(ipywidgets.VBox):
    """A concept as its folder shows it. Below its buttons opens what was pressed last."""

    def __init__(
        self,
        shown: Overview,
        act: Callable[[Callable[[], str]], None],
        draw: Callable[[str], None] | None = None,
    ):
        """Show the card.

        Args:
            act: gets each change to call, and shows the sentence that the change returns or raises.
            draw: gets the concept's name; it then stands in place of the changes.
        """
        self._shown, self._act = shown, act
        name = shown.name
        self.open_button = button("Open", self._open, f"Which notebook comes next for {name}")
        self.rename_button = button("Rename", self._ask_to_rename, f"Give {name} or its word another name")
        tooltip = f"Move {name} to the trash, after a question"
        self.delete_button = button("Delete", self._ask_to_delete, tooltip)
        self.rename_button.disabled = shown.state == "damaged"
        self.draw_button = button("Draw", lambda: draw(name), f"Draw with {self._word() or name}", "primary")
        self.draw_button.disabled = shown.state != "learned"
        self.name = ipywidgets.Text(name, description="Name", layout=_WIDE)
        self.word = ipywidgets.Text(self._word(), description="Word", layout=_WIDE)
        self.name.observe(self._follow, "value")
        self.panel = ipywidgets.VBox()
        look = ipywidgets.HTML(_look(shown) + _facts(shown))
        changes = [self.open_button, self.rename_button, self.delete_button]
        buttons = ipywidgets.HBox([self.draw_button] if draw else changes)
        super().__init__([look, buttons, self.panel], layout=_CARD)

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
        rename = button("Rename it", lambda: self._act(self._rename), style="primary")
        cancel = button("Cancel", self._close, "Change nothing")
        self.panel.children = [*fields, ipywidgets.HBox([rename, cancel])]

    def _rename(self) -> str:
        word = self.word.value.strip() if self._shown.concept else None
        return rename_concept(self._shown.name, self.name.value.strip(), word)

    def _follow(self, change) -> None:
        """The word goes with the name as it is typed, where it did so before."""
        if self.word.value == word_after(self._shown.name, change["old"], self._word()):
            self.word.value = word_after(self._shown.name, change["new"], self._word())

    def _ask_to_delete(self) -> None:
        delete = functools.partial(self._act, lambda: delete_concept(self._shown.name, sure=True))
        asked, *buttons = ask(question(self._shown.name), "Delete it", delete, "Cancel", self._close)
        self.panel.children = [asked, ipywidgets.HBox(buttons)]

    def _close(self) -> None:
        self.panel.children = []


def _look(shown: Overview) -> str:
    if shown.cover:
        return picture(shown.cover, f"{shown.name}: {shown.cover.alt}")
    return f'<div style="width:{SIDE}px;height:{SIDE}px;opacity:.6">No picture yet.</div>'


def _facts(shown: Overview) -> str:
    concept = shown.concept
    facts = [
        f"{concept.placeholder_token} on {concept.base_model.rsplit('/', 1)[-1]}" if concept else "",
        shown.problem or f"{shown.state}, {counted(shown.pictures, 'picture')}",
        scores_in_words(shown.scores),
        f"{in_bytes(shown.size)}, {shown.changed:%Y-%m-%d %H:%M}",
    ]
    return f"<b>{html.escape(shown.name)}</b>{lines(*facts)}"


_STEPS = 25  # enough for the scheduler that the form begins with


class DrawingPage(ipywidgets.VBox):
    """A gallery to choose a learned word in, and below it the form to draw with.

    One model is kept at a time: choosing another word lets the last one go. What is drawn is saved into the
    concept's `grids/yours/`, as by the form in notebook 5.
    """

    def __init__(self):
        self.gallery, self.message = ConceptGallery(draw=self._choose), Message()
        self.form: GridForm | None = None
        self.loading: threading.Thread | None = None
        self._place = ipywidgets.VBox()
        super().__init__([self.gallery, self.message, self._place])

    def _choose(self, name: str) -> None:
        if self.loading and self.loading.is_alive():
            return self.message.say("A model is being loaded: wait until it is there.")
        if self.form and self.form.drawing and self.form.drawing.is_alive():
            return self.message.say("A grid is being drawn: press Stop first, or wait until it is there.")
        self.message.say(f"Loading the model of {name}…")
        self.loading = run_in_thread(self.message, lambda: self._open(name))

    def _open(self, name: str) -> str:
        self._place.children = []
        if self.form:
            self.form.close()
            self.form = None
        concept = Concept.load(name)
        pipeline, examples = pipeline_with_word(concept), examples_for(concept)
        prompt = own_prompt(concept, examples.own)
        self.form = GridForm(pipeline, concept, prompt, steps=_STEPS, guidance=examples.guidance)
        self._place.children = [self.form]
        return f"Write {concept.placeholder_token} where it belongs, and press Draw below."
