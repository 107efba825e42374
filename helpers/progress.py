"""A bar for what takes longer than one likes to wait without a word."""

import multiprocessing
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

SECONDS = 2.0  # before it appears
LARGE = 500_000_000  # bytes; to read or write so many takes seconds

T = TypeVar("T")


def progress(things: Iterable[T], what: str, total: int | None = None, at_once: bool = False) -> Iterable[T]:
    """Go through `things` under a bar that appears after two seconds and goes when it is done.

    It is a widget in a notebook and a line in a terminal. Where its text would go into a file, and in
    the processes of a launcher, there is none.

    Args:
        what: is going on, for the bar's left side.
        total: how many there are, where `things` does not know.
        at_once: show it from the beginning, where a single one of them takes long.
    """
    return _bar(what, at_once, iterable=things, total=total)


def progress_bar(what: str, at_once: bool = False) -> tqdm:
    """The same for one thing that has no parts to count: it says what is going on, until `with` ends."""
    return _bar(what, at_once, bar_format="{desc}")


def _bar(what: str, at_once: bool, **things) -> tqdm:
    delay = 0.0 if at_once else SECONDS
    hidden = True if multiprocessing.parent_process() else None  # None: where there is no terminal
    return tqdm(desc=what, delay=delay, leave=False, disable=hidden, **things)
