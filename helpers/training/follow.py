"""Reading the log of a run again and again while it grows."""

import os
from pathlib import Path
from typing import Any

from .log import parse_lines


class LogFollower:
    """Holds the lines of a training folder's `log.jsonl`; each `read` takes in only what is new.

    A log that was replaced, by a run that goes on from a checkpoint or starts over, is read anew.

    Attributes:
        lines: as from `read_log`.
    """

    def __init__(self, folder: Path):
        self.lines: list[dict[str, Any]] = []
        self._path, self._file, self._read = folder / "log.jsonl", None, 0

    def read(self) -> bool:
        """Take in what was written since the last call; whether the lines have changed."""
        if not self._path.is_file():
            return self._forget()
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = status.st_dev, status.st_ino
            replaced = (identity != self._file or status.st_size < self._read) and self._forget()
            self._file = identity
            return self._take(file) or replaced

    def _take(self, file) -> bool:
        file.seek(self._read)
        new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self.lines += parse_lines(whole)
        self._read += len(whole)
        return bool(whole)

    def _forget(self) -> bool:
        had = bool(self.lines)
        self.lines, self._file, self._read = [], None, 0
        return had
