"""What the forms share: fields, buttons, messages, and pictures with a text for a screen reader."""

import html
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ipywidgets import HTML, Box, Button, FileUpload, GridBox, HBox, VBox, Widget
from PIL import Image

from ..common.errors import UserError
from ..common.sheets import html_picture, packed

SIDE, SMALL_SIDE = 192, 160  # pixels of a picture on the page, and of one in a row
RED = "var(--jp-error-color1, #d32f2f)"  # legible on a light page and on a dark one
ROW = {"flex_flow": "row wrap", "align_items": "flex-start"}
CARD = {"margin": "4px", "padding": "6px", "border": "1px solid var(--jp-border-color1, #888888)"}
NAME_WIDTH = 110  # pixels of the name before a field
INDENT = f"2px 2px 2px {NAME_WIDTH + 8}px"  # a margin that lines up with the fields


class View(VBox):
    """A form that also has static HTML, for pages without a kernel such as a saved notebook on the web."""

    def static_html(self) -> str:
        """What such a page shows; empty: nothing."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        try:
            static = self.static_html()
        except UserError:  # a field has a wrong value: the form itself says so
            static = ""
        return super()._repr_mimebundle_(**kwargs) | ({"text/html": static} if static else {})


class Message(HTML):
    """Sentences that a screen reader reads out when they change."""

    def say(self, *sentences: str) -> None:
        self.value = f'<div role="status">{lines(*sentences)}</div>'

    def run(self, action: Callable[[], str | None]) -> str:
        """Run a button's action and show what it returns, or `error_of` it in red.

        Returns:
            That sentence, or nothing: a callback has nowhere to raise an error.
        """
        try:
            why = error_of(lambda: self.say(action() or ""))
        except KeyboardInterrupt:
            why = ""
            self.say("Stopped: nothing was saved.")
        if why:
            self.value = problem(why)
        return why

    def button(self, text: str, action: Callable[[], str | None], about: str = "", style: str = "") -> Button:
        """A `button` whose action goes through `run`."""
        return button(text, lambda: self.run(action), about, style)

    def run_in_thread(
        self, action: Callable[[], str], at_end: Callable[[], Any] = lambda: None
    ) -> threading.Thread:
        """The same for a long action: no click is handled before a button's own function has returned.

        Args:
            at_end: called after the action, also if it failed.
        """

        def target() -> None:
            try:
                self.run(action)
            except Exception as error:  # memory ran out, for example: a thread has nobody to tell
                self.value = problem(f"It could not be done: {error}")
                raise
            finally:
                at_end()

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        return thread


class StartStop(HBox):
    """A button that starts a long action in a thread, and one that sets `asked_to_stop`, which it checks."""

    def __init__(
        self,
        message: Message,
        prepare: Callable[[], Callable[[], str]],
        text: str,
        about: str,
        about_stop: str,
    ):
        """Show the buttons.

        Args:
            prepare: reads the form at the click and returns the action, which shall not look at the form
                again: it may be changed meanwhile. After a `UserError` nothing is started.
        """
        self._message, self._prepare = message, prepare
        self.start = button(text, self._start, about, "primary")
        self.stop = button("Stop", self._ask_to_stop, about_stop, "warning")
        self.asked_to_stop, self.thread = threading.Event(), None
        super().__init__([self.start, self.stop])
        self._set_running(False)

    @property
    def is_running(self) -> bool:
        return self.start.disabled

    def _set_running(self, is_running: bool) -> None:
        self.start.disabled, self.stop.disabled = is_running, not is_running

    def _start(self) -> None:
        if self.is_running:  # a click from before the button was off
            return
        try:
            action = self._prepare()
        except UserError as error:
            self._message.value = problem(str(error))
            return
        self._set_running(True)
        self.asked_to_stop.clear()
        self._message.say()
        self.thread = self._message.run_in_thread(action, lambda: self._set_running(False))

    def _ask_to_stop(self) -> None:
        if self.is_running:
            self.asked_to_stop.set()
            self._message.say("Stopping…")


def error_of(action: Callable[[], Any]) -> str:
    """The sentence of the `UserError` that an action raises, what the disk refused, or nothing."""
    try:
        action()
    except UserError as error:
        return str(error)
    except OSError as error:  # it is full, or must not be written
        return f"It could not be done: {error}"
    return ""


def button(text: str, act: Callable[[], Any], about: str = "", style: str = "") -> Button:
    """A button as wide as its text. `style`: `primary`, `warning` or `danger`."""
    made = Button(description=text, tooltip=about or text, button_style=style)
    made.layout.width, made.layout.align_self = "auto", "flex-start"
    if style == "warning":
        made.style.text_color = "#1a1a1a"  # white on orange, as on a light page, is hard to read
    made.on_click(lambda _: act())
    return made


def field(kind: type, name: str, about: str = "", width: int = 290, **settings: Any) -> Widget:
    """A field with its name before it. `about`: its tooltip; `width`: pixels with the name, at most."""
    made = kind(description=name, tooltip=about or name, **settings)
    made.layout.width, made.style.description_width = f"min({width}px, 98%)", f"{NAME_WIDTH}px"
    return made


def show_in(box: Box, children: Sequence[Widget]) -> None:
    """Give a box other children, and close those that it had.

    Else ipywidgets keeps them in memory, and the second click of a double click still reaches them.
    """
    gone = [child for child in box.children if child not in children]
    box.children = children
    for child in gone:
        close(child)


def close(widget: Widget) -> None:
    """Close a widget with all that is in it."""
    widget.close()
    looks = (getattr(widget, name, None) for name in ("layout", "style"))
    for part in (*getattr(widget, "children", ()), *filter(None, looks)):
        close(part)


def title(name: str) -> str:
    """A setting's name as shown on the page."""
    return name.replace("_", " ").capitalize()


def ask(question: str, yes: str, act: Callable[[], Any], no: str, keep: Callable[[], Any]) -> list:
    """A question that a screen reader reads out, a red button to do it, and a button to change nothing."""
    asked = HTML(f'<div role="alert">{lines(question)}</div>')
    return [asked, button(yes, act, style="danger"), button(no, keep, "Change nothing")]


def upload(text: str, about: str, take: Callable[[list[tuple[str, bytes]]], Any], **kinds: Any) -> FileUpload:
    """A button to choose files on one's computer; `take` gets their names and bytes.

    Args:
        kinds: `accept` and `multiple` of `FileUpload`.
    """

    def uploaded(change) -> None:
        files = [(file["name"], bytes(file["content"])) for file in change["new"]]
        if files:
            take(files)
            chosen.value = ()  # so that the same file can be chosen again

    chosen = FileUpload(description=text, tooltip=about, **kinds)
    chosen.layout.width, chosen.layout.align_self = "auto", "flex-start"
    chosen.observe(uploaded, "value")
    return chosen


def lines(*sentences: str) -> str:
    """Sentences as HTML, one below the other, without empty ones."""
    style = "line-height:1.3;overflow-wrap:anywhere"
    return "".join(f'<div style="{style}">{html.escape(one)}</div>' for one in sentences if one)


def hint(text: str) -> str:
    """A pale line beside a field."""
    return f"<div style='opacity:.75'>{lines(text)}</div>"


def problem(sentence: str) -> str:
    """A sentence in red, which a screen reader reads out at once."""
    return f"<div role='alert' style='color:{RED}'>{lines(sentence)}</div>"


def mark_wrong(control: Widget, is_wrong: Any) -> None:
    """Give a field a red border, or take it away."""
    control.layout.border = f"1px solid {RED}" if is_wrong else ""


def thumbnail(image: Image.Image, side: int = SIDE) -> Image.Image:
    """A copy whose longer side is `side` pixels at most."""
    small = image.copy()
    small.thumbnail((side, side))
    return small


def picture(image: Image.Image, alt: str, side: int = SIDE, kind: str = "png") -> str:
    """An `<img>` that fills a square of `side` pixels as far as its shape allows.

    Args:
        kind: its file format, `png` or `jpeg`.
    """
    sharp = "image-rendering:pixelated;" * (2 * max(image.size) <= side)  # as the miniature's pictures
    style = f"width:{side}px;height:{side}px;object-fit:contain;{sharp}"
    return html_picture(packed(image, kind), f"image/{kind}", alt, style, title=alt)


def figure(caption: str, *pictures: str) -> str:
    """A caption above pictures, as `picture` makes them."""
    return (
        f'<figure style="margin:4px 16px 4px 0"><figcaption>{html.escape(caption)}</figcaption>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(pictures)}</div></figure>'
    )


def picture_row(caption: str, images: Sequence[Image.Image], texts: Sequence[str]) -> str:
    """A caption above small pictures, each with its text. Small ones are PNG, pixel by pixel."""
    shown = [
        picture(thumbnail(image), text, SMALL_SIDE, "png" if max(image.size) <= SMALL_SIDE else "jpeg")
        for image, text in zip(images, texts, strict=True)
    ]
    return figure(caption, *shown)


# Pictures in rows and columns, each a button for the mouse, the keyboard and a screen reader.
_FRAME = 3
_CHOSEN = f"{_FRAME}px solid var(--jp-brand-color1, #1976d2)"
_OTHER = f"{_FRAME}px solid transparent"
_OUTLINE = f"outline:{_CHOSEN} !important;outline-offset:-{_FRAME}px"
_FOCUS = f"<style>.picture-button:focus-visible{{{_OUTLINE}}}</style>"
_CELL = {
    "grid_area": "1 / 1 / 2 / 2",  # picture and button in the one cell of a grid
    "width": f"{SMALL_SIDE}px",
    "height": f"{SMALL_SIDE}px",
    "margin": "0",
    "padding": "0",
    "overflow": "hidden",
}


class PictureButtons(GridBox):
    """A grid of pictures that can be pressed; the last one pressed has a frame."""

    def __init__(self):
        self._cells = []
        super().__init__(layout={"overflow": "auto", "align_items": "center", "grid_gap": "2px"})

    def show(
        self,
        choose: Callable[[int], None],
        images: Sequence[Image.Image],
        texts: Sequence[str],
        rows: Sequence[str],
        columns: Sequence[str],
    ) -> None:
        """Replace the pictures.

        Args:
            choose: gets the number of a pressed picture, counted row by row from 0.
            images: row by row, of any sizes.
            texts: what tells each from the others, for a screen reader and as a tooltip.
            rows, columns: labels at the left and above, one for each row and column.
        """
        shown = enumerate(zip(images, texts, strict=True))
        self._cells = [self._cell(partial(choose, number), *pair) for number, pair in shown]
        wide = len(columns)
        children = [HTML(_FOCUS), *(_label(text, "center") for text in columns)]
        for number, text in enumerate(rows):
            children += [_label(text, "right"), *self._cells[number * wide : (number + 1) * wide]]
        side = SMALL_SIDE + 2 * _FRAME
        self.layout.grid_template_columns = f"minmax(0, max-content) repeat({wide}, {side}px)"
        show_in(self, children)

    def _cell(self, choose: Callable[[], None], image: Image.Image, text: str) -> GridBox:
        """A picture under a transparent button."""
        shown = HTML(picture(thumbnail(image), text, SMALL_SIDE), layout=_CELL)
        above = Button(description=f"Settings of {text}", tooltip=text, layout=_CELL)
        above.style.button_color = above.style.text_color = "transparent"
        above.add_class("picture-button")
        hidden = {"border": _OTHER, "overflow": "hidden"}  # else some browsers add scroll bars
        cell = GridBox([shown, above], layout=hidden)
        above.on_click(lambda _: self._pressed(cell, choose))
        return cell

    def _pressed(self, pressed: GridBox, choose: Callable[[], None]) -> None:
        for cell in self._cells:
            cell.layout.border = _CHOSEN if cell is pressed else _OTHER
        choose()


def _label(text: str, align: str) -> HTML:
    return HTML(f'<div style="text-align:{align}">{lines(text)}</div>')
