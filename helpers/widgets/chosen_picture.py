"""One picture, larger, and what it was made with."""

import html

import ipywidgets

from ..png_settings import Picture
from .thumbnails import as_html

_SIDE = 256


class ChosenPicture(ipywidgets.HTML):
    """Empty until a picture is shown."""

    def show(self, picture: Picture, text: str) -> None:
        """Show a picture and its settings; `text` says which it is."""
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left;vertical-align:top;padding-right:8px">{name}</th>'
            f'<td style="overflow-wrap:anywhere">{html.escape(str(value))}</td></tr>'
            for name, value in _settings(picture).items()
        )
        shown = picture.image.copy()
        shown.thumbnail((2 * _SIDE, 2 * _SIDE))
        self.value = (
            f'<div role="status" style="line-height:1.4;max-width:{_SIDE + 64}px">'
            f"{as_html(shown, text, _SIDE)}<table>{rows}</table></div>"
        )

    def clear(self) -> None:
        """Show nothing."""
        self.value = ""


def _settings(picture: Picture) -> dict[str, object]:
    settings = picture.settings
    step = "the result" if settings.training_step is None else settings.training_step
    shown = {
        "Prompt": settings.prompt,
        "Negative prompt": settings.negative_prompt,
        "Seed": settings.seed,
        "Guidance": f"{settings.guidance:g}",
        "Steps": settings.steps,
        "Scheduler": settings.scheduler,
        "Training step": step if settings.concept else "",
        "Size": f"{settings.size} x {settings.size}",
        "Base model": settings.base_model,
        "Safety checker": "made this picture black" if picture.refused else "",
    }
    return {name: value for name, value in shown.items() if value != ""}
