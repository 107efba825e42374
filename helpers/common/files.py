"""Atomic writes of files and folders, a lock between processes, and which files are pictures."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from .errors import UserError

PICTURE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .avif .gif .bmp .tif .tiff .heic .heif".split()
)


def is_picture_file(path: Path) -> bool:
    """Whether a file has a picture's suffix; hidden files (`._1.jpg`) do not count."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def picture_files(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names; empty if there is no such folder."""
    return sorted(filter(is_picture_file, folder.iterdir())) if folder.is_dir() else []


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which is renamed to `path` at the end of `with`.

    For writers that want a path, such as `zipfile`. If an error is raised, what was there before stays. The
    folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path, ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> Path:
    """Write a file whole or not at all; text as UTF-8. The folder is created.

    Raises:
        OSError: the disk is full; what was there before is still there.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file, as `write_whole` does."""
    return write_whole(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any | None:
    """The content of a JSON file; None if it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_bytes())
    return None


@contextmanager
def replaced(folder: Path, work: Path) -> Iterator[Path]:
    """Give a copy of a folder, or an empty one, to write into; it replaces the folder at the end of `with`.

    The copy is in `work`, which must be on the same disk. A process that is killed between the two renames at
    the end leaves no folder; the next call restores it.
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
    """Give a temporary folder to write into, which is renamed to `folder` at the end of `with`."""
    unfinished = _beside(folder, ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(folder)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process, its machine, and since when by the disk's clock (seconds since 1970)."""

    pid: int
    host: str
    start: float

    def __str__(self) -> str:
        where = "" if self.host == platform.node() else f" on {self.host}"
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.start))
        return f"process {self.pid}{where}, since {since}"


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of that name until the end of `with`, or of the process.

    Args:
        refusal: the text of the UserError if another process has the lock; `{}` stands for that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(path, seconds=1)  # `holder` in another process takes the lock for an instant
    if lock is None:
        raise UserError(refusal.format(holder(path) or "another process"))
    about = _beside(path, ".json")
    try:
        write_json(about, {"pid": os.getpid(), "host": platform.node()})
        yield
    finally:
        about.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> Holder | None:
    """Who holds a lock now; None: nobody."""
    if not path.parent.is_dir() or not (path.exists() or _beside(path, ".soft").exists()):
        return None
    about = _beside(path, ".json")
    patience = 0 if about.exists() else 1  # seconds: another who asks has it for an instant, too
    try:
        if lock := _acquire(path, patience):
            about.unlink(missing_ok=True)  # of a process that was killed
            lock.release()
            return None
    except OSError:  # the disk is only to be read
        if not about.exists():
            return None
    said, start = {"pid": 0, "host": platform.node()}, time.time()  # if it has only just taken the lock
    with suppress(FileNotFoundError):
        start = about.stat().st_mtime
    with suppress(TypeError, ValueError):  # not ours
        said |= read_json(about)
    return Holder(said["pid"], said["host"], start)


def _acquire(path: Path, seconds: float) -> BaseFileLock | None:
    """The lock, or None if another process has it.

    The operating system's lock ends with its process. Some network disks have none: there a file that exists
    is the lock, and filelock removes that of a dead process.
    """
    try:
        return FileLock(path, fallback_to_soft=False).acquire(seconds).lock
    except Timeout:
        return None
    except (OSError, NotImplementedError):
        with suppress(Timeout):
            return SoftFileLock(_beside(path, ".soft")).acquire(seconds).lock
    return None
