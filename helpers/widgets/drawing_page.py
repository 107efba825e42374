"""A page to draw on: the gallery to choose a learned word in, and below it the form to draw with."""

import threading

import ipywidgets

from ..concept.concept import Concept
from ..inference.examples import examples_for, own_prompt
from ..inference.pipeline import pipeline_with_word
from .concept_gallery import ConceptGallery
from .grid_form import GridForm
from .kit import Message, problem

_STEPS = 25  # enough for the scheduler that the form begins with


class DrawingPage(ipywidgets.VBox):
    """One model is kept at a time: choosing another word lets the last one go.

    What is drawn is saved into the concept's `grids/yours/`, as by the form in notebook 5.
    """

    def __init__(self):
        self.gallery, self.message = ConceptGallery(draw=self._choose), Message()
        self.form: GridForm | None = None
        self.loading: threading.Thread | None = None
        self._place = ipywidgets.VBox()
        super().__init__([self.gallery, self.message, self._place])

    def _choose(self, name: str) -> None:
        """Load in a thread: a large model takes a minute, and the page shall answer meanwhile."""
        if self.loading and self.loading.is_alive():
            return self.message.say("A model is being loaded: wait until it is there.")
        if self.form and self.form.is_drawing:
            return self.message.say("A grid is being drawn: press Stop first, or wait until it is there.")
        self.message.say(f"Loading the model of {name}…")
        self.loading = threading.Thread(target=self._open_and_say, args=(name,), daemon=True)
        self.loading.start()

    def _open_and_say(self, name: str) -> None:
        try:
            self.message.do(lambda: self._open(name))
        except Exception as error:  # memory ran out, for example: a thread has nobody to tell
            self.message.value = problem(f"{name} could not be opened: {error}")
            raise

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
