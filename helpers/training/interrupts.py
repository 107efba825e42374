"""Being asked to stop: by a file, by the kernel's interrupt, by the machine."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

STOP_FILE = "stop"


def request_stop(folder: Path) -> Path:
    """Ask the run of a training folder to stop after its step: make the file that it looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP_FILE).touch()
    return folder / STOP_FILE


def stop_requested(folder: Path) -> bool:
    return (folder / STOP_FILE).exists()


def clear_request(folder: Path) -> None:
    (folder / STOP_FILE).unlink(missing_ok=True)


class Interrupts:
    """Within `with`, an interrupt (Ctrl-C, the kernel's ■) or SIGTERM waits until the step is done.

    Attributes:
        asked: whether one came. A second one stops at once, as without this.
    """

    SAME = 1.0  # seconds: a launcher of several processes hands each of them the kernel's interrupt again

    def __init__(self):
        self.asked, self._since = False, 0.0
        self._before: dict[int, Callable] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.asked and now - self._since > self.SAME:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._since = True, now
