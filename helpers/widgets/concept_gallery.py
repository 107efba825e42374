"""All concepts with their pictures: open, rename or delete one, or draw with its word."""

import html
from collections.abc import Callable
from functools import partial

from ipywidgets import HTML, Button, HBox, Output, Text, VBox, Widget

from ..common.sheets import Table, counted
from ..concept import manage, overview
from ..concept.concept import Concept
from ..inference.examples import examples_for, own_prompt
from ..inference.pipeline import pipeline_with_word
from . import kit
from .grid_form import GridForm

_CARD = kit.CARD | {"width": f"{kit.SIDE + 64}px"}


class ConceptGallery(kit.View):
    """A card for each concept, read from its folder. Its static HTML is a table and a sheet of pictures."""

    def __init__(self, draw: Callable[[str], None] | None = None):
        """Show all concepts.

        Args:
            draw: gets the name of the concept to draw with. If given, the cards offer nothing else.
        """
        self._draw, self.message = draw, kit.Message()
        self.cards, self.trash = HBox(layout=kit.ROW), HBox(layout=kit.ROW)
        super().__init__([self.message, self.cards, self.trash])
        self.refresh()

    def refresh(self) -> None:
        """Read the folders anew."""
        self._fill()
        self.message.say("" if self.cards.children else overview.nothing_yet())

    def _do(self, action: Callable[[], str]) -> None:
        if not self.message.run(action) or self._names != overview.concept_names():  # changed elsewhere
            self._fill()

    def _fill(self) -> None:
        self._names = overview.concept_names()
        cards = [ConceptCard(one, self._do, self._draw) for one in overview.all_concepts()]
        kit.show_in(self.cards, cards)
        kit.show_in(self.trash, [] if self._draw else self._trash())

    def _trash(self) -> list[Widget]:
        names = list(dict.fromkeys(path.name for path in reversed(manage.in_trash())))
        back = [
            kit.button(f"Bring back {name}", partial(self._do, partial(manage.restore_concept, name)))
            for name in names
            if name not in overview.concept_names()
        ]
        return [*back, kit.button("Empty the trash", self._ask_to_empty)] if names else []

    def _ask_to_empty(self) -> None:
        erase = partial(self._do, partial(manage.empty_trash, sure=True))
        asked = manage.erasing_question()
        kit.show_in(self.trash, kit.ask(asked, "Erase for good", erase, "Keep", self.refresh))

    def static_html(self) -> str:
        """A table, and below it a picture of each concept."""
        self.refresh()
        sheet = overview.concept_sheet()
        is_table = isinstance(sheet, Table)
        return overview.concept_table()._repr_html_() + ("" if is_table else sheet.as_html())


class ConceptCard(VBox):
    """One concept with its buttons; a panel below them belongs to the last one pressed."""

    def __init__(
        self,
        shown: overview.Overview,
        act: Callable[[Callable[[], str]], None],
        draw: Callable[[str], None] | None = None,
    ):
        """Show the card.

        Args:
            act: calls each change, and shows the sentence that the change returns or raises.
            draw: gets the concept's name; if given, its button is the only one.
        """
        self._shown, self._act, self.panel = shown, act, VBox()
        self._word = shown.concept.placeholder_token if shown.concept else ""
        buttons = HBox([self._draw_button(draw)] if draw else self._change_buttons())
        super().__init__([HTML(_cover(shown) + _facts(shown)), buttons, self.panel], layout=_CARD)

    def _draw_button(self, draw: Callable[[str], None]) -> Button:
        name = self._shown.name
        made = kit.button("Draw", lambda: draw(name), f"Draw with {self._word or name}", "primary")
        made.disabled = self._shown.state != "learned"
        return made

    def _change_buttons(self) -> list[Button]:
        name = self._shown.name
        about = f"Give {name} or its word another name"
        self.rename_button = kit.button("Rename", self._ask_to_rename, about)
        self.rename_button.disabled = self._shown.state == "damaged"
        return [
            kit.button("Open", self._open, f"Which notebook comes next for {name}"),
            self.rename_button,
            kit.button("Delete", self._ask_to_delete, f"Move {name} to the trash, after a question"),
        ]

    def _open(self) -> None:
        """Show the link in an output: only there does JupyterLab open it as a notebook."""
        opened = overview.open_concept(self._shown.name)
        data = {"text/html": opened._repr_html_(), "text/plain": str(opened)}
        output = {"output_type": "display_data", "data": data, "metadata": {}}
        kit.show_in(self.panel, [Output(outputs=(output,))])

    def _ask_to_rename(self) -> None:
        self.name = Text(self._shown.name, description="Name", layout={"width": "98%"})
        self.word = Text(self._word, description="Word", layout={"width": "98%"})
        self.name.observe(self._follow, "value")
        fields = [self.name, self.word] if self._word else [self.name]
        rename = kit.button("Rename it", lambda: self._act(self._rename), style="primary")
        cancel = kit.button("Cancel", self._close, "Change nothing")
        kit.show_in(self.panel, [*fields, HBox([rename, cancel])])

    def _rename(self) -> str:
        word = self.word.value.strip() if self._word else None
        return manage.rename_concept(self._shown.name, self.name.value.strip(), word)

    def _follow(self, change) -> None:
        """Change the word with the name as it is typed, if the two belonged together before."""
        if self.word.value == manage.word_after(self._shown.name, change["old"], self._word):
            self.word.value = manage.word_after(self._shown.name, change["new"], self._word)

    def _ask_to_delete(self) -> None:
        name = self._shown.name
        delete = partial(self._act, partial(manage.delete_concept, name, sure=True))
        asked, *buttons = kit.ask(manage.question(name), "Delete it", delete, "Cancel", self._close)
        kit.show_in(self.panel, [asked, HBox(buttons)])

    def _close(self) -> None:
        kit.show_in(self.panel, [])


def _cover(shown: overview.Overview) -> str:
    if shown.cover:
        return kit.picture(shown.cover, f"{shown.name}: {shown.cover.alt}")
    return f'<div style="width:{kit.SIDE}px;height:{kit.SIDE}px;opacity:.6">No picture yet.</div>'


def _facts(shown: overview.Overview) -> str:
    concept = shown.concept
    facts = [
        f"{concept.placeholder_token} on {concept.base_model.rsplit('/', 1)[-1]}" if concept else "",
        shown.problem or f"{shown.state}, {counted(shown.pictures, 'picture')}",
        overview.scores_in_words(shown.scores),
        f"{overview.in_bytes(shown.size)}, {shown.changed:%Y-%m-%d %H:%M}",
    ]
    return f"<div><b>{html.escape(shown.name)}</b></div>{kit.lines(*facts)}"


class DrawingPage(VBox):
    """A gallery of learned words, and below it the form of notebook 5 for the chosen one.

    One model is in memory at a time: choosing another word frees the last one.
    """

    def __init__(self):
        self.gallery, self.message = ConceptGallery(draw=self._choose), kit.Message()
        self.form, self._loading, self._place = None, None, VBox()
        super().__init__([self.gallery, self.message, self._place])

    def _choose(self, name: str) -> None:
        if self._loading and self._loading.is_alive():
            return self.message.say("A model is being loaded: wait until it is there.")
        if self.form and self.form.run.is_running:
            return self.message.say("A grid is being drawn: press Stop first, or wait until it is there.")
        self.message.say(f"Loading the model of {name}…")
        self._loading = self.message.run_in_thread(lambda: self._open(name))

    def _open(self, name: str) -> str:
        kit.show_in(self._place, [])
        self.form = None
        concept = Concept.load(name)
        pipeline, examples = pipeline_with_word(concept), examples_for(concept)
        prompt, steps = own_prompt(concept, examples.own), 25  # enough for the scheduler that it begins with
        self.form = GridForm(pipeline, concept, prompt, steps=steps, guidance=examples.guidance)
        self._place.children = [self.form]
        return f"Write {concept.placeholder_token} where it belongs, and press Draw below."
