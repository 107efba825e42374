"""The pictures of a concept: from your computer, the web or a drawn toy; turn, crop or remove them."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anywidget
import traitlets
from ipywidgets import HTML, Button, Dropdown, FloatSlider, HBox, Label, Textarea, VBox, Widget
from PIL import Image

from ..common.errors import UserError
from ..common.sheets import image_grid
from ..dataset import images
from ..dataset.check import open_picture
from ..dataset.fetch import Fetched, fetch_all
from . import kit

_CARD = kit.CARD | {"width": f"{kit.SIDE + 24}px"}
_FADED = 60  # of 255
_DOUBLE_CLICK = 0.5  # seconds between its clicks, at most
_UPLOAD = "Choose picture files on your computer, 10 MB at most together; drop larger ones below"
_HERE = Path(__file__).parent


class Gallery(kit.View):
    """Upload, drop or fetch pictures, read the verdict on each, and rotate, crop or remove those kept.

    Everything it shows is read from the concept's folder. Its static HTML is the pictures.
    """

    def __init__(self, concept: images.ConceptLike, base_model: str | None = None):
        """Show the pictures of a concept; arguments as for `add_images`."""
        self._concept, self._base_model = concept, base_model
        self._card_of: dict[str, PictureCard] = {}
        self._notes: dict[str, str] = {}
        self._moved_at = float("-inf")  # when pictures moved into the place of one that was removed
        self._fetched: str | None = None  # what the page said of the last fetch
        about = "Addresses of the web, paths or folders, each on its own line"
        example = "https://…, a path or a folder; each on its own line"
        self._addresses = kit.field(Textarea, "Addresses", about, 900, placeholder=example)
        self._fetch = kit.button("Fetch", self._fetch_pressed, "Add the pictures at these addresses")
        self._message, self._advice = kit.Message(), kit.Message()
        self._not_added, self._cards = HBox(layout=kit.ROW), HBox(layout=kit.ROW)
        choose = kit.upload("Add pictures", _UPLOAD, self._take, accept="image/*", multiple=True)
        area = DropArea("or drop picture files here", self._take)
        controls = [choose, area, self._addresses, self._fetch]
        super().__init__([*controls, self._message, self._advice, self._not_added, self._cards])
        self._refresh()

    def _take(self, files: Sequence[tuple[str, bytes]]) -> None:
        self._do(lambda: _summary(self._add([Fetched(name, data) for name, data in files])))

    def _fetch_pressed(self) -> None:
        if self._message.value == self._fetched and not self._addresses.value:
            return  # the second click of a double click: the page says already what was fetched
        self._fetch.disabled = True
        try:
            self._do(self._fetch_addresses)
        finally:
            self._fetch.disabled, self._fetched = False, self._message.value

    def _fetch_addresses(self) -> str:
        addresses = self._addresses.value.split("\n")
        if not any(map(str.strip, addresses)):
            raise UserError("Paste addresses, paths or folders first, each on its own line.")
        self._message.say("Fetching…")
        verdicts = self._add(fetch_all(addresses))
        if all(verdict.outcome != "refused" for verdict in verdicts):
            self._addresses.value = ""  # else they stay, to be corrected
        return _summary(verdicts)

    def _add(self, files: Sequence[Fetched]) -> list[images.Verdict]:
        """The page shows the verdicts on the last upload."""
        self._notes = {}
        kit.show_in(self._not_added, [])
        return self._judge(files)

    def _judge(self, files: Sequence[Fetched], **how: bool) -> list[images.Verdict]:
        """Add pictures, and make a note or a card for each: also a refused one gets a thumbnail."""
        verdicts = images.add_images(self._concept, files, self._base_model, **how)
        for one, verdict in zip(files, verdicts, strict=True):
            if verdict.outcome == "kept":
                note = f"{images.short_source(verdict.source)}: kept as {verdict.path.name}. {verdict.why}"
                self._notes[verdict.path.name] = note.strip()
            else:
                self._not_added.children += (self._card_of_refused(one, verdict),)
        return verdicts

    def _card_of_refused(self, one: Fetched, verdict: images.Verdict) -> VBox:
        """Its thumbnail, if it can be opened, and the reason; one taken for another picture can be kept."""
        card, source = VBox(layout=_CARD), images.short_source(one.source)
        is_there = verdict.outcome == "already kept"
        why = f" as {verdict.path.name}." if is_there else f". {verdict.why}"
        said = kit.lines(f"{source}: {verdict.outcome}{why}")
        card.children = [HTML(_thumbnail_of(one, f"{source}, which was not added") + said)]
        if verdict.outcome == "refused" and verdict.path:
            about = f"Keep {source} beside {verdict.path.name}: it is another picture"
            keep = kit.button("Keep it", lambda: self._do(lambda: self._keep(one, card)), about)
            card.children += (keep,)
        return card

    def _keep(self, one: Fetched, card: VBox) -> str:
        verdicts = self._judge([one], keep_alike=True)
        kit.show_in(self._not_added, [other for other in self._not_added.children if other is not card])
        return _summary(verdicts)

    def _do(self, action: Callable[[], str | None]) -> None:
        self._message.run(action)
        self._refresh()

    def _change(self, action: Callable[[], None]) -> None:
        """Change a picture; but not by a double click's second click, below which another one has moved."""
        if time.monotonic() - self._moved_at > _DOUBLE_CLICK:
            self._do(action)

    def _refresh(self) -> None:
        """Read the folder again. Cards of files that are still there stay, with the keyboard's focus."""
        self._advice.say(images.advice(self._concept))
        try:
            names = [path.name for path in images.image_paths(self._concept)]
        except UserError:
            names = []  # none yet
        if self._card_of.keys() - {*names}:
            self._moved_at = time.monotonic()
        self._card_of = {
            name: self._card_of.get(name) or PictureCard(self._concept, name, self._change) for name in names
        }
        for name, card in self._card_of.items():
            card.refresh(self._notes.get(name, ""))
        kit.show_in(self._cards, list(self._card_of.values()))

    def static_html(self) -> str:
        """The pictures in a grid."""
        self._refresh()
        pictures = {name: card.thumbnail for name, card in self._card_of.items() if card.thumbnail}
        return image_grid(list(pictures.values()), 5, list(pictures)).as_html() if pictures else ""


def _thumbnail_of(one: Fetched, alt: str) -> str:
    try:
        return kit.picture(kit.thumbnail(open_picture(one.data or b"")), alt)
    except UserError:
        return ""  # it can't be opened, as the reason says


def _summary(verdicts: Sequence[images.Verdict]) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "."


class PictureCard(VBox):
    """One picture with its buttons. `thumbnail`: the whole picture, or None if its file is damaged."""

    def __init__(self, concept: images.ConceptLike, name: str, act: Callable[[Callable[[], None]], None]):
        """Show the picture `name`. `act` calls each change, and shows its `UserError`."""
        self._concept, self._name, self._act = concept, name, act
        self._file = None
        self.thumbnail: Image.Image | None = None
        self._picture, self._facts, self._note = HTML(), Label(), HTML()
        remove = self._button("Remove", f"Delete {name}", images.remove_image)
        self._rotate = self._button("Rotate", f"Turn {name} by 90 degrees clockwise", images.rotate_image)
        buttons, self._crop = HBox([self._rotate, remove]), VBox()
        super().__init__([self._picture, self._facts, self._note, buttons, self._crop], layout=_CARD)

    def refresh(self, note: str = "") -> None:
        """Show `note` below the picture, and the picture again if its file has changed."""
        self._note.value = kit.lines(note)
        stat = images.image_path(self._concept, self._name).stat()
        file = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if file != self._file:
            self._file = file
            self._draw()

    def _button(self, text: str, about: str, change: Callable) -> Button:
        change = functools.partial(change, self._concept, self._name)
        return kit.button(text, lambda: self._act(change), about)

    def _crop_controls(self, towards: str) -> list[Widget]:
        """A slider for the square's place, and the button to cut it."""
        about = f"Where the square of {self._name} lies; what Crop square cuts off is faded"
        how = {"min": 0, "max": 1, "step": 0.01, "readout": False, "layout": {"width": "auto"}}
        self._place = FloatSlider(0.5, description=towards, tooltip=about, **how)
        self._place.style.description_width = "initial"
        self._place.observe(self._preview, "value")
        return [self._place, self._button("Crop square", f"Cut {self._name} square", self._cropped)]

    def _cropped(self, concept: images.ConceptLike, name: str) -> None:
        images.crop_image(concept, name, self._place.value)

    def _draw(self) -> None:
        try:
            image = images.load_image(self._concept, self._name)
        except UserError as error:
            self.thumbnail, self._rotate.disabled = None, True
            kit.show_in(self._crop, [])
            self._picture.value, self._facts.value = kit.lines(str(error)), self._name
            return
        width, height = image.size
        self.thumbnail, self._rotate.disabled = kit.thumbnail(image), False
        alt = f"Picture {self._name}, {width} by {height} pixels"
        self._picture.value = kit.picture(self.thumbnail, alt)
        self._facts.value = f"{self._name}: {width} x {height} pixels"
        towards = "Left to right" if width > height else "Top to bottom"
        kit.show_in(self._crop, self._crop_controls(towards) if width != height else [])

    def _preview(self, _change) -> None:
        """Fade what a crop would cut off, by transparency: that works on a light page and a dark one."""
        opacity = Image.new("L", self.thumbnail.size, _FADED)
        opacity.paste(255, images.square_box(self.thumbnail.size, self._place.value))
        faded = self.thumbnail.copy()
        faded.putalpha(opacity)
        alt = f"Preview of {self._name}: the square that is kept, the rest faded"
        self._picture.value = kit.picture(faded, alt)


class DropArea(anywidget.AnyWidget):
    """An area to drop files on; `take` gets the names and bytes of each drop.

    A file is sent in pieces of 4 MB, since a notebook's server takes no message above 10 MB.
    """

    _esm = _HERE / "drop_area.js"
    _css = _HERE / "drop_area.css"
    label = traitlets.Unicode().tag(sync=True)

    def __init__(self, label: str, take: Callable[[list[tuple[str, bytes]]], None]):
        super().__init__(label=label)
        self._take, self._files = take, []
        self.on_msg(self._receive)

    def _receive(self, _widget, message: dict, pieces: list) -> None:
        if message["kind"] == "end":
            files, self._files = self._files, []
            self._take([(name, bytes(data)) for name, data in files])
            return
        if message["kind"] == "file":
            self._files.append((message["name"], bytearray()))
        for piece in pieces:
            self._files[-1][1].extend(piece)


# A toy put together from traits, whose drawings become the pictures of a concept.
Traits = Mapping[str, str]


class ToyMaker(kit.View):
    """Choose traits, see the toy in several places, and make these drawings a concept's pictures.

    The traits and the drawing are arguments. Its static HTML is the drawings.
    """

    def __init__(
        self,
        concept: images.ConceptLike,
        traits: Mapping[str, Sequence[str]],
        draw: Callable[[Traits, int], list[Image.Image]],
        remark: Callable[[Traits], str] = lambda _: "",
    ):
        """Show the first toy.

        Args:
            concept: gets the pictures, as for `add_images`.
            traits: values to choose from, by the name of the trait.
            draw: makes pictures of the chosen traits; the number decides the places.
            remark: a sentence on the chosen traits, or nothing.
        """
        self._concept, self._draw, self._remark, self._seed = concept, draw, remark, 0
        self.fields = {name: kit.field(Dropdown, kit.title(name), options=traits[name]) for name in traits}
        self.images: list[Image.Image] = []
        self._shown, self.remark, self.message = HTML(), kit.Message(), kit.Message()
        self.others = kit.button("Other places", self._elsewhere, "Draw the same toy in other places")
        about = "Make these drawings pictures of the concept"
        self.use = self.message.button("Use these", self._use, about, "primary")
        buttons = HBox([self.others, self.use])
        super().__init__([*self.fields.values(), self.remark, self._shown, buttons, self.message])
        for field in self.fields.values():
            field.observe(lambda _: self._show(), "value")
        self._show()

    @property
    def chosen(self) -> dict[str, str]:
        """The chosen values, by the name of the trait."""
        return {name: field.value for name, field in self.fields.items()}

    def _show(self) -> None:
        self.images = self._draw(self.chosen, self._seed)
        texts = [f"drawing {number}" for number in range(1, len(self.images) + 1)]
        self._shown.value = kit.picture_row("Your toy", self.images, texts)
        self.remark.say(self._remark(self.chosen))
        self.message.say()

    def _elsewhere(self) -> None:
        self._seed += 1
        self._show()

    def _use(self) -> str:
        return images.keep_drawn(self._concept, self.images)

    def static_html(self) -> str:
        """The drawings in a row."""
        return image_grid(self.images, columns=len(self.images)).as_html()
