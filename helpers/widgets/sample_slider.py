"""The samples of a run, one step at a time, with a slider back through them."""

from pathlib import Path

import ipywidgets
from PIL import Image

from ..concept import Concept
from ..grid import GAP
from ..training.samples import sample_prompts, saved_samples
from .picture_row import picture_row


class SampleSlider(ipywidgets.VBox):
    """Shows the newest sample, and stays with it until the reader moves the slider from its end.

    The slider is linked on the page as well, so that it moves while the kernel is busy.
    """

    def __init__(self, concept: Concept):
        self._concept, self._prompts = concept, sample_prompts(concept)
        self._made: dict[tuple[Path, int], ipywidgets.HTML] = {}
        self.slider = ipywidgets.SelectionSlider(
            options=[0], description="Step", continuous_update=True, layout={"visibility": "hidden"}
        )
        self.stack = ipywidgets.Stack()
        self._filling, self._link = False, None
        self.slider.observe(self._turn, "index")
        super().__init__([self.stack, self.slider])

    def show(self) -> None:
        """Take in the samples that are new on disk."""
        samples = saved_samples(self._concept)
        keys = [(path, path.stat().st_mtime_ns) for path in samples.values()]
        if keys == list(self._made):
            return
        self._made = {
            key: self._made.get(key) or self._page(step, key[0])
            for step, key in zip(samples, keys, strict=True)
        }
        self._fill(list(samples))

    def _fill(self, steps: list[int]) -> None:
        """New options, with the slider where it was: at the newest, or at the step that is looked at."""
        at, follows = self.slider.value, self.slider.index == len(self.slider.options) - 1
        index = len(steps) - 1 if follows or at not in steps else steps.index(at)
        if len(steps) < len(self.stack.children):  # a run that starts over
            self.stack.selected_index = None
        self.stack.children = list(self._made.values())
        self._filling = True
        self.slider.options = steps or [0]  # sent apart from the index: a page that gets both keeps its own
        self.slider.index = max(index, 0)
        self._filling = False
        self.slider.layout.visibility = "visible" if len(steps) > 1 else "hidden"
        self._turn()
        if steps and not self._link:  # not before: a page can't show a child that isn't there
            self._link = ipywidgets.jsdlink((self.slider, "index"), (self.stack, "selected_index"))

    def _turn(self, _change=None) -> None:
        if not self._filling:
            self.stack.selected_index = self.slider.index if self.stack.children else None

    def _page(self, step: int, path: Path) -> ipywidgets.HTML:
        with Image.open(path) as strip:
            side = strip.height
            pictures = [
                strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side + GAP)
            ]
        texts = [f"step {step}: {prompt}" for prompt in self._prompts[: len(pictures)]]
        return ipywidgets.HTML(picture_row(f"Drawn at step {step}", pictures, texts))
