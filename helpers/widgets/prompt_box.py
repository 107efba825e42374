"""A line to type a prompt into, and the picture of it."""

import html

import ipywidgets

from ..contact_sheets import prompt_sheet
from ..errors import UserError


class PromptBox(ipywidgets.VBox):
    """A prompt, a seed and a button; each picture is saved into `grids/yours/` too."""

    def __init__(self, pipeline, concept, prompt: str, **settings):
        """Show the box with `prompt` in it; `settings` go to `inference.generate`."""
        self._pipeline, self._concept, self._settings = pipeline, concept, settings
        self._prompt = ipywidgets.Text(prompt, description="Prompt", layout={"width": "90%"})
        self._seed = ipywidgets.IntText(0, description="Seed")
        self._pictures = ipywidgets.IntSlider(4, 1, 8, description="Pictures")
        button = ipywidgets.Button(description="Draw", button_style="primary")
        button.on_click(self._draw)
        self._shown = ipywidgets.VBox()
        super().__init__([self._prompt, self._seed, self._pictures, button, self._shown])

    def _draw(self, _button) -> None:
        seeds = range(self._seed.value, self._seed.value + self._pictures.value)
        try:
            sheet = prompt_sheet(
                self._pipeline, self._prompt.value, seeds, len(seeds), name="yours", **self._settings
            )
        except UserError as error:
            self._shown.children = [ipywidgets.HTML(html.escape(str(error)))]
            return
        sheet.save(self._concept)
        self._shown.children = [ipywidgets.Image(value=sheet._repr_jpeg_(), format="jpeg")]
