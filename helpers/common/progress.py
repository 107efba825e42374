"""Progress bars, shown after two seconds: one line of text, in a notebook as in a terminal."""

import multiprocessing
from collections.abc import Iterable
from typing import TypeVar

from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

SECONDS = 2.0  # before it appears
LARGE = 500_000_000  # bytes; to read or write so many takes seconds
T = TypeVar("T")


def progress(things: Iterable[T], what: str, total: int | None = None, at_once: bool = False) -> Iterable[T]:
    """Iterate over `things` under a bar, which disappears at the end.

    There is no bar where the output goes into a file, and in the processes of a launcher.

    Args:
        what: what is going on, for the bar's left side.
        total: the number of things, if `len(things)` does not give it.
        at_once: show it from the start, where a single thing takes long.
    """
    return _bar(what, at_once, iterable=things, total=total)


def progress_bar(what: str, total: int | None = None, at_once: bool = False) -> tqdm:
    """A bar until the end of `with`, moved by its `update`; without a total it only says what is going on."""
    return _bar(what, at_once, **({"total": total} if total else {"bar_format": "{desc}"}))


class PageLine:
    """A file for tqdm that shows each text in a notebook's output in place of the one before.

    tqdm's own bar for notebooks is a widget: once closed, it leaves “widget not found” in the saved file,
    and where widgets are switched off it is never seen.
    """

    def __init__(self):
        self.shown = None  # the output, once there is something to show

    def write(self, text: str) -> None:
        content = {"text/plain": text.strip()}
        if self.shown:
            self.shown.update(content, raw=True)
        elif content["text/plain"]:
            self.shown = display(content, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing to do: what is written is seen at once."""


def _bar(what: str, at_once: bool, **things) -> tqdm:
    if multiprocessing.parent_process():
        place = {"disable": True}
    elif hasattr(get_ipython(), "kernel"):
        place = {"file": PageLine(), "position": 0, "mininterval": 0.5}
    else:
        place = {"disable": None}  # where there is no terminal
    return tqdm(desc=what, delay=0.0 if at_once else SECONDS, leave=False, **place, **things)
