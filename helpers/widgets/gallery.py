"""Add pictures from your computer or the web, see those of a concept, turn, crop or remove them."""

import base64
import html
from collections import Counter
from collections.abc import Callable, Sequence

import ipywidgets

from ..download import Fetched, fetch_all
from ..errors import UserError
from ..grid import image_grid
from ..images import ConceptLike, Verdict, add_fetched, advice, image_paths, short_source
from .cards import PictureCard, card_not_added
from .drop_area import DropArea
from .thumbnails import as_png

_SIDE = 128
_ROW = {"flex_flow": "row wrap"}


class Gallery(ipywidgets.VBox):
    """Upload, drop or fetch pictures, read the verdict under each, and rotate, crop or remove those kept.

    All that it shows is read from the concept's folder. Where a widget can't live, as in a saved
    notebook on the web, it is a still picture.
    """

    def __init__(self, concept: ConceptLike, base_model: str | None = None):
        """Show the pictures of `concept` (as for `add_images`, also `base_model`)."""
        self._concept, self._base_model = concept, base_model
        self._card_of: dict[str, PictureCard] = {}
        self._notes: dict[str, str] = {}
        self._addresses = _addresses_field()
        self._message = ipywidgets.HTML()
        self._not_added, self._cards = ipywidgets.HBox(layout=_ROW), ipywidgets.HBox(layout=_ROW)
        area = DropArea("or drop picture files here", self._take)
        controls = [self._upload_button(), area, self._addresses, self._fetch_button()]
        super().__init__([*controls, self._message, self._not_added, self._cards])
        self._show()

    def _upload_button(self) -> ipywidgets.FileUpload:
        button = ipywidgets.FileUpload(accept="image/*", multiple=True, description="Add pictures")
        button.tooltip = (
            "Choose picture files on your computer, 10 MB at most together; drop larger ones below"
        )
        button.layout.width, button.layout.align_self = "auto", "flex-start"
        button.observe(self._upload, "value")
        return button

    def _fetch_button(self) -> ipywidgets.Button:
        button = ipywidgets.Button(description="Fetch", tooltip="Add the pictures at these addresses")
        button.on_click(self._fetch)
        return button

    def _upload(self, change) -> None:
        files = [(file["name"], bytes(file["content"])) for file in change["new"]]
        if files:
            self._take(files)
            change["owner"].value = ()  # so that the same file may come again

    def _take(self, files: Sequence[tuple[str, bytes]]) -> None:
        self._do(lambda: _summary(self._add([Fetched(name, data) for name, data in files])))

    def _fetch(self, button: ipywidgets.Button) -> None:
        button.disabled = True
        try:
            self._do(self._fetch_addresses)
        finally:
            button.disabled = False

    def _fetch_addresses(self) -> str:
        addresses = self._addresses.value.split("\n")
        if not any(map(str.strip, addresses)):
            raise UserError("Paste addresses, paths or folders first, each on its own line.")
        self._say("Fetching…")
        verdicts = self._add(fetch_all(addresses))
        if all(verdict.outcome != "refused" for verdict in verdicts):
            self._addresses.value = ""  # else they stay, to be corrected
        return _summary(verdicts)

    def _add(self, files: Sequence[Fetched]) -> list[Verdict]:
        """The steps of `add_images`, with the bytes kept at hand: also what is refused gets a thumbnail."""
        verdicts = add_fetched(self._concept, files, self._base_model)
        pairs = list(zip(files, verdicts, strict=True))
        self._notes = {verdict.path.name: _kept(verdict) for _, verdict in pairs if verdict.outcome == "kept"}
        self._not_added.children = [card_not_added(*pair) for pair in pairs if pair[1].outcome != "kept"]
        return verdicts

    def _do(self, action: Callable[[], str | None]) -> None:
        """A callback has nowhere to show an error but the widget itself."""
        try:
            self._show(action() or "")
        except UserError as error:
            self._show(str(error))

    def _show(self, message: str = "") -> None:
        self._say(message, advice(self._concept))
        self._refresh()

    def _say(self, *sentences: str) -> None:
        lines = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences if sentence)
        self._message.value = f'<div role="status">{lines}</div>'

    def _refresh(self) -> None:
        """Cards stay the same objects while their files are there, so that the keyboard's focus stays too."""
        names = self._names()
        self._card_of = {name: self._card_of.get(name) or self._new_card(name) for name in names}
        for name, card in self._card_of.items():
            card.refresh(self._notes.get(name, ""))
        self._cards.children = list(self._card_of.values())

    def _names(self) -> list[str]:
        try:
            return [path.name for path in image_paths(self._concept)]
        except UserError:
            return []  # none yet

    def _new_card(self, name: str) -> PictureCard:
        return PictureCard(self._concept, name, self._do)

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and beside it the still picture for pages that have no kernel."""
        self._refresh()
        bundle = super()._repr_mimebundle_(**kwargs)
        pictures = {name: card.thumbnail for name, card in self._card_of.items() if card.thumbnail}
        if pictures:
            sheet = image_grid(list(pictures.values()), columns=5, captions=list(pictures), cell=_SIDE)
            bundle["image/png"] = base64.b64encode(as_png(sheet)).decode()
            bundle["text/plain"] = sheet.alt
        return bundle


def _addresses_field() -> ipywidgets.Textarea:
    return ipywidgets.Textarea(
        description="Addresses",
        placeholder="https://…, a path or a folder; each on its own line",
        tooltip="Addresses of the web, paths or folders, each on its own line",
        layout={"width": "90%"},
    )


def _kept(verdict: Verdict) -> str:
    return f"{short_source(verdict.source)}: kept as {verdict.path.name}. {verdict.why}".strip()


def _summary(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "."
