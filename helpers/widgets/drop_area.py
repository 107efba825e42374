"""An area of the page that takes dropped files: ipywidgets' own `FileUpload` is a button and no more."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent


class DropArea(anywidget.AnyWidget):
    """Hands over the files of each drop, as names and bytes.

    A file comes in pieces of 4 MB, since a notebook's server takes no message above 10 MB.
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
