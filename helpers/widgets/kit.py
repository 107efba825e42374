"""Small pictures for a page, each with a text in its place for a screen reader."""

import base64
import html
import io
from collections.abc import Callable, Sequence

import ipywidgets
from PIL import Image

SIDE = 192  # pixels on the page
_FADED = 60  # of 255


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy whose longer side is `SIDE` pixels at most."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def fade_outside(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture, nearly transparent outside `box` (left, top, right, bottom): dim on any page."""
    opacity = Image.new("L", image.size, _FADED)
    opacity.paste(255, box)
    faded = image.copy()
    faded.putalpha(opacity)
    return faded


def as_html(image: Image.Image, alt: str, side: int = SIDE) -> str:
    """An `<img>` that fills a square of `side` pixels as far as its shape allows."""
    data = base64.b64encode(as_png(image)).decode()
    sharp = "image-rendering:pixelated;" * (2 * max(image.size) <= side)  # as the miniature's pictures
    style = f"width:{side}px;height:{side}px;object-fit:contain;{sharp}"
    return f'<img style="{style}" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def as_png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


# How a form says what a field is for, and what is wrong with it: legible in light and dark themes.
RED = "var(--jp-error-color1, #d32f2f)"


def hint(text: str) -> str:
    """A quiet line beside a field."""
    return f"<div style='opacity:.75;line-height:1.3'>{html.escape(text)}</div>"


def problem(sentence: str) -> str:
    """Why a value can't be used; a screen reader reads it out at once."""
    return f"<div role='alert' style='color:{RED};line-height:1.3'>{html.escape(sentence)}</div>"


# Small pictures in a row, as HTML: each with a text in its place, on no ground of its own.
_SHOWN = 128  # pixels
_KEPT = 192  # for screens of a higher resolution


def picture_row(caption: str, images: Sequence[Image.Image], texts: Sequence[str]) -> str:
    """A caption and below it pictures.

    Args:
        images: any sizes; each is fitted into a square.
        texts: what each shows, read out by a screen reader and shown under the mouse.
    """
    row = "".join(_picture(image, text) for image, text in zip(images, texts, strict=True))
    return (
        f'<figure style="margin:4px 16px 4px 0"><figcaption>{html.escape(caption)}</figcaption>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px">{row}</div></figure>'
    )


def _picture(image: Image.Image, text: str) -> str:
    text = html.escape(text)
    return (
        f'<img alt="{text}" title="{text}" src="{_address(image)}" '
        f'style="width:{_SHOWN}px;height:{_SHOWN}px;object-fit:contain">'
    )


def _address(image: Image.Image) -> str:
    """The picture itself as an address: small ones exactly, others as JPEG."""
    kind = "png" if max(image.size) <= _SHOWN else "jpeg"
    small, content = image.convert("RGB"), io.BytesIO()
    small.thumbnail((_KEPT, _KEPT))
    small.save(content, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


# Pictures in rows and columns, each of them a button: for the mouse, the keyboard and a screen reader.
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
