"""A picture of a concept with its buttons, and one that was not added with the reason."""

import functools
import html
from collections.abc import Callable

import ipywidgets
from PIL import Image

from ..download import Fetched
from ..edit_images import crop_image, rotate_image, square_box
from ..errors import UserError
from ..images import ConceptLike, Verdict, image_path, load_image, remove_image, short_source
from ..pictures import open_picture
from .thumbnails import SIDE, as_html, fade_outside, thumbnail

Act = Callable[[Callable[[], None]], None]

_LAYOUT = {
    "width": f"{SIDE + 24}px",
    "margin": "4px",
    "padding": "6px",
    "border": "1px solid var(--jp-border-color1, #888888)",
}
_AS_WIDE_AS_ITS_TEXT = {"width": "auto", "align_self": "flex-start"}


class PictureCard(ipywidgets.VBox):
    """One picture, drawn from its file, with what can be done to it.

    `thumbnail` is what it shows before a crop is tried; None where the file is damaged.
    """

    def __init__(self, concept: ConceptLike, name: str, act: Act):
        """Show the picture `name`. `act` gets each change to call, and shows a `UserError` of it."""
        self._concept, self._name, self._act = concept, name, act
        self._file = None
        self.thumbnail: Image.Image | None = None
        self._picture, self._facts, self._note = ipywidgets.HTML(), ipywidgets.Label(), ipywidgets.HTML()
        remove = self._button("Remove", f"Delete {name}", remove_image)
        self._rotate = self._button("Rotate", f"Turn {name} by 90 degrees clockwise", rotate_image)
        self._place = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.01, readout=False)
        self._place.style.description_width, self._place.layout.width = "initial", "auto"
        self._place.tooltip = f"Where the square of {name} lies; what Crop square cuts off is faded"
        self._place.observe(self._preview, "value")
        self._crop = ipywidgets.VBox()
        self._crop_controls = [self._place, self._button("Crop square", f"Cut {name} square", self._cropped)]
        buttons = ipywidgets.HBox([self._rotate, remove])
        super().__init__([self._picture, self._facts, self._note, buttons, self._crop], layout=_LAYOUT)

    def refresh(self, note: str = "") -> None:
        """Say `note` below the picture, and draw it anew if its file has changed."""
        self._note.value = _lines(note)
        stat = image_path(self._concept, self._name).stat()
        file = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if file != self._file:
            self._file = file
            self._draw()

    def _button(self, text: str, tooltip: str, change: Callable) -> ipywidgets.Button:
        button = ipywidgets.Button(description=text, tooltip=tooltip, layout=_AS_WIDE_AS_ITS_TEXT)
        button.on_click(lambda _: self._act(functools.partial(change, self._concept, self._name)))
        return button

    def _cropped(self, concept: ConceptLike, name: str) -> None:
        crop_image(concept, name, self._place.value)

    def _draw(self) -> None:
        try:
            image = load_image(self._concept, self._name)
        except UserError as error:
            return self._draw_damaged(str(error))
        width, height = image.size
        self.thumbnail = thumbnail(image)
        self._place.value = 0.5
        self._place.description = "Left to right" if width > height else "Top to bottom"
        self._picture.value = as_html(self.thumbnail, f"Picture {self._name}, {width} by {height} pixels")
        self._facts.value = f"{self._name}: {width} x {height} pixels"
        self._rotate.disabled = False
        self._crop.children = self._crop_controls if width != height else []

    def _draw_damaged(self, why: str) -> None:
        self.thumbnail = None
        self._picture.value, self._facts.value = _lines(why), self._name
        self._rotate.disabled = True
        self._crop.children = []

    def _preview(self, _change) -> None:
        kept = square_box(self.thumbnail.size, self._place.value)
        alt = f"Preview of {self._name}: the square that is kept, the rest faded"
        self._picture.value = as_html(fade_outside(self.thumbnail, kept), alt)


def card_not_added(one: Fetched, verdict: Verdict) -> ipywidgets.HTML:
    """What did not become a picture of the concept: how it looks, if it opens, and the reason."""
    source = short_source(one.source)
    sentence = f"{source}: {verdict.outcome}"
    sentence += f" as {verdict.path.name}." if verdict.kept else f". {verdict.why}"
    return ipywidgets.HTML(_look(one, source) + _lines(sentence), layout=_LAYOUT)


def _look(one: Fetched, source: str) -> str:
    try:
        return as_html(thumbnail(open_picture(one.data or b"")), f"{source}, which was not added")
    except UserError:
        return ""  # the reason says so


def _lines(text: str) -> str:
    return f'<div style="line-height:1.3;overflow-wrap:anywhere">{html.escape(text)}</div>' if text else ""
