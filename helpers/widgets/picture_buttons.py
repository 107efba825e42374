"""Pictures in rows and columns, each of them a button: for the mouse, the keyboard and a screen reader."""

import html
from collections.abc import Callable, Sequence

import ipywidgets
from PIL import Image

from .thumbnails import as_html, thumbnail

_SIDE = 128
_FRAME = 3
_CHOSEN = "var(--jp-brand-color1, #1976d2)"
_STYLE = "line-height:1.3;overflow-wrap:anywhere"
_CLASS = "picture-button"
_OUTLINE = f"outline:{_FRAME}px solid {_CHOSEN} !important;outline-offset:-{_FRAME}px"
_FOCUS = f"<style>.{_CLASS}:focus-visible{{{_OUTLINE}}}</style>"
_SAME_PLACE = "1 / 1 / 2 / 2"  # of the one cell of a grid


class PictureButtons(ipywidgets.GridBox):
    """A grid whose pictures can be chosen; the one that was chosen has a frame."""

    def __init__(self, choose: Callable[[int], None]):
        """Start empty. `choose` gets the number of a picture that is pressed, counted row by row from 0."""
        self._choose, self._cells = choose, []
        super().__init__(layout={"overflow": "auto", "align_items": "center", "grid_gap": "2px"})

    def show(
        self, images: Sequence[Image.Image], texts: Sequence[str], rows: Sequence[str], columns: Sequence[str]
    ) -> None:
        """Put pictures in place of those that are there.

        Args:
            images: row by row, any sizes.
            texts: what tells each from the others, for a screen reader and under the mouse.
            rows: labels at the left.
            columns: labels above; there are as many columns.
        """
        self._cells = [
            self._cell(number, *pair) for number, pair in enumerate(zip(images, texts, strict=True))
        ]
        wide = len(columns)
        children = [ipywidgets.HTML(_FOCUS), *(_label(text, "center") for text in columns)]
        for number, text in enumerate(rows):
            children += [_label(text, "right"), *self._cells[number * wide : (number + 1) * wide]]
        self.layout.grid_template_columns = f"minmax(0, max-content) repeat({wide}, {_SIDE + 2 * _FRAME}px)"
        self.children = children

    def _cell(self, number: int, image: Image.Image, text: str) -> ipywidgets.GridBox:
        """The picture, and over it a button that one can see through."""
        picture = ipywidgets.HTML(as_html(thumbnail(image), text, _SIDE), layout=_place())
        button = ipywidgets.Button(description=f"Settings of {text}", tooltip=text, layout=_place())
        button.style.button_color = button.style.text_color = "transparent"
        button.add_class(_CLASS)
        button.on_click(lambda _: self._pressed(number))
        hidden = {"border": _frame("transparent"), "overflow": "hidden"}  # else some browsers add scroll bars
        return ipywidgets.GridBox([picture, button], layout=hidden)

    def _pressed(self, number: int) -> None:
        for index, cell in enumerate(self._cells):
            cell.layout.border = _frame(_CHOSEN if index == number else "transparent")
        self._choose(number)


def _place() -> dict[str, str]:
    side = f"{_SIDE}px"
    return {
        "grid_area": _SAME_PLACE,
        "width": side,
        "height": side,
        "margin": "0",
        "padding": "0",
        "overflow": "hidden",
    }


def _frame(colour: str) -> str:
    return f"{_FRAME}px solid {colour}"


def _label(text: str, align: str = "left") -> ipywidgets.HTML:
    return ipywidgets.HTML(f'<div style="text-align:{align};{_STYLE}">{html.escape(text)}</div>')
