"""Files and folders that are written whole or not at all; a lock; and which files are pictures."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .errors import UserError

PICTURE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .avif .gif .bmp .tif .tiff .heic .heif".split()
)


def is_picture_file(path: Path) -> bool:
    """Whether the name is that of a picture; hidden files (`._1.jpg`) are not."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names; none where there is no such folder."""
    return sorted(filter(is_picture_file, folder.iterdir())) if folder.is_dir() else []


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; at the end of `with` the file gets its name in one go.

    For writers that want a path, such as Pillow's `save` (which then needs its `format`) or `zipfile`.
    What was there before stays until then, and for good if something is raised. The folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write a file whole or not at all; text as UTF-8. The folder is made.

    Raises:
        OSError: there is no room for it; what was there before is still there.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file, as `write_whole` does."""
    return write_whole(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any | None:
    """What a JSON file holds; None where there is none, or it is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_bytes())
    return None


@contextmanager
def replaced(folder: Path, work: Path) -> Iterator[Path]:
    """Give a copy of a folder, or an empty one, to write into; at the end it takes the folder's place.

    Both are kept in `work` meanwhile, which must lie on the same disk. Between the two renames at the end
    there is no folder for an instant; a process that is killed right there is mended by the next call.
    """
    old, new = work / f"{folder.name}.old", work / f"{folder.name}.new"
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)
    if folder.exists():
        shutil.copytree(folder, new)
    else:
        new.mkdir(parents=True)
    yield new
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def made_once(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that gets its name at the end: one that has the name is whole."""
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(folder)


# A lock that says who holds it.


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process, the machine that it runs on, and since when (seconds since 1970)."""

    pid: int = 0
    host: str = field(default_factory=platform.node)
    start: float = field(default_factory=time.time)

    def __str__(self) -> str:
        where = "" if self.host == platform.node() else f" on {self.host}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.start))
        return f"process {self.pid}{where}, since {since}"


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of that name until `with` ends, or the process does, however it ends.

    Args:
        refusal: what to say where another process has it; `{}` stands for that one.

    Raises:
        UserError: another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(path, seconds=1)  # one who only asks for the holder has the lock for an instant
    if lock is None:
        raise UserError(refusal.format(holder(path) or "another process"))
    try:
        write_json(_about(path), asdict(Holder(os.getpid())))
        yield
    finally:
        _about(path).unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> Holder | None:
    """Who holds a lock now; None where nobody does."""
    if not path.parent.is_dir() or not (path.exists() or _soft(path).exists()):
        return None
    if lock := _acquire(path, 0):
        lock.release()
        return None
    return Holder(**(read_json(_about(path)) or {}))  # nothing is there if it has only just taken it


def _acquire(path: Path, seconds: float) -> BaseFileLock | None:
    """The lock, or None where another has it.

    The system's own lock ends with its process. Where a disk has none, as some that are mounted over a
    network, a file stands for it that is there or not; filelock removes that of a dead process.
    """
    try:
        return FileLock(path, fallback_to_soft=False).acquire(seconds).lock
    except Timeout:
        return None
    except (OSError, NotImplementedError):
        with suppress(Timeout):
            return SoftFileLock(_soft(path)).acquire(seconds).lock
    return None


def _soft(path: Path) -> Path:
    return path.with_name(f"{path.name}.soft")


def _about(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
