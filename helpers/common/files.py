"""A run as it stands after a step, so that a run that was killed goes on as if it had not been."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all.

    Raises:
        OSError: there is no room for it; what was there before is still there.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# Folders that are changed in one go: a killed process leaves the old one, or the new one.


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
