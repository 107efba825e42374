"""What follows from a concept's settings, beside the form: how its words are read, what training needs."""

import functools
import html

import ipywidgets

from ..base_model import load_tokenizers, load_word_table
from ..concept import Concept
from ..errors import UserError
from ..tokens import show_tokens
from ..training.estimate import estimate
from ..training.pace import measure_pace
from ..words import collisions, nearest_words
from .marks import hint, problem


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
