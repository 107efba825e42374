"""Turn a learned word back towards the class word, look at it, and keep it."""

from typing import Any

import ipywidgets

from ..concept.concept import Concept
from ..concept.embedding import turned, use_step
from ..inference.grid import Sheet, xy_grid
from ..inference.pipeline import add_word, switch_step
from ..model.tokens import learned_tokens
from .kit import Message, View, button


class TurnForm(View):
    """A slider from the word as learned (0) to its initializer (1), as `embedding.turned` makes it.

    *Draw* shows prompts with the word above the same with the turned one. *Keep* makes that the result. On
    a page without a kernel it is the last sheet.
    """

    def __init__(self, pipeline: Any, concept: Concept, step: int, prompts: list[str], **settings):
        """Show the form and its first sheet.

        Args:
            step: the training step whose rows are turned.
            prompts: with `{}` for the word.
            settings: more of `xy_grid`'s.
        """
        self._pipeline, self._concept, self._step = pipeline, concept, step
        self._prompts, self._settings = prompts, settings
        self.share = ipywidgets.FloatSlider(0.2, min=0, max=1, step=0.05, description="Turn")
        self.sheet: Sheet | None = None
        self.message, self.pictures = Message(), ipywidgets.HTML()
        self.draw = button("Draw", lambda: self.message.do(self._draw), "Draw both words", "primary")
        self.keep = button("Keep", lambda: self.message.do(self._keep), "Make the turned word the result")
        super().__init__([self.share, ipywidgets.HBox([self.draw, self.keep]), self.message, self.pictures])
        self.message.do(self._draw)

    def _draw(self) -> str:
        share = self.share.value
        words = ("word", [self._concept.placeholder_token, self._turned_word(share)])
        prompts = ("prompt", self._prompts)
        self.sheet = xy_grid(self._pipeline, x=prompts, y=words, **self._settings)
        self.pictures.value = self.sheet.image.as_html()
        return f"Above as learned, below turned by {share:g}."

    def _turned_word(self, share: float) -> str:
        """A word of the pipeline with these rows; put there once."""
        word = f"<turned-{self._step}-{share:.2f}>"
        if word not in learned_tokens(self._pipeline.tokenizer):
            add_word(self._pipeline, word, turned(self._concept, self._step, share))
        return word

    def _keep(self) -> str:
        share = self.share.value
        use_step(self._concept, self._step, share)
        switch_step(self._pipeline, self._concept, None)
        return f"The result is turned by {share:g}." if share else "The result is the word as learned."

    def still(self) -> str:
        """The last sheet."""
        return self.pictures.value
