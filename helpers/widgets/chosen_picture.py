"""One picture, larger, and what it was made with."""

import html
from collections.abc import Callable

import ipywidgets

from ..png_settings import Picture
from .thumbnails import as_html

_SIDE = 256
_NAME = "text-align:left;vertical-align:top;padding-right:8px;white-space:nowrap"


class ChosenPicture(ipywidgets.VBox):
    """Empty until a picture is shown."""

    def __init__(self, use: Callable[[Picture], None]):
        """Start empty. `use` gets the picture whose settings a person wants."""
        self._picture: Picture | None = None
        self.page = ipywidgets.HTML()
        self.button = ipywidgets.Button(description="Use these settings", layout={"width": "auto"})
        self.button.tooltip = "Put this picture's settings into the form"
        self.button.on_click(lambda _: use(self._picture))
        super().__init__(layout={"align_items": "flex-start"})

    def show(self, picture: Picture, text: str) -> None:
        """Show a picture and its settings; `text` says which it is."""
        self._picture = picture
        shown = picture.image.copy()
        shown.thumbnail((2 * _SIDE, 2 * _SIDE))
        self.page.value = (
            f'<div role="status" style="line-height:1.4;max-width:{_SIDE + 64}px">'
            f"{as_html(shown, text, _SIDE)}{_table(_settings(picture))}</div>"
        )
        self.children = [self.page, self.button]

    def clear(self) -> None:
        """Show nothing."""
        self.children = []


def _table(settings: dict[str, object]) -> str:
    rows = "".join(
        f'<tr><th scope="row" style="{_NAME}">{name}</th>'
        f'<td style="overflow-wrap:anywhere">{html.escape(str(value))}</td></tr>'
        for name, value in settings.items()
    )
    return f"<table>{rows}</table>"


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
