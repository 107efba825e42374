"""A concept goes from machine to machine as a zip; on a cloud its folder is made to last."""

import filecmp
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from . import places
from .concept import Concept
from .errors import UserError
from .progress import progress

_MOST_FILES = 20_000
_MOST_GROWTH = 200  # times the size of the zip, when unpacked
_SYSTEM_FILES = {"__MACOSX", ".DS_Store"}  # what a Mac adds to a zip


def connection_advice() -> str:
    """What to do when a connection fails: one sentence, for the cloud that this machine is."""
    if places.cloud() == "kaggle":
        return "On Kaggle, switch Internet on: in the panel at the right, under Session options."
    return "Check your connection, then try again."


def mount_drive() -> None:
    """On Colab, mount Google Drive so that concepts outlive the machine; elsewhere only say where they lie.

    Raises:
        UserError: Drive was not mounted, for example because the question was declined.
    """
    if places.cloud() == "colab":
        from google.colab import drive

        try:
            drive.mount("/content/drive")
        except Exception as error:  # Colab raises several kinds, by how the question was declined
            raise UserError(
                "Drive is not mounted: run this cell again, or go on without it and take the concept "
                "home as a zip before the machine goes."
            ) from error
    print(f"Concepts are kept in the folder “{places.concepts_root().name}” ({places.cloud()}).")


def pack(concept: Concept | str) -> Path:
    """Put all that belongs to a concept into `<root>/<name>.zip`, to be taken to another machine.

    Raises:
        UserError: there is nothing to pack yet.
    """
    folder = _handle(concept).folder
    files = list(_files(folder))
    if not files:
        raise UserError(f"There is nothing in the concept “{folder.name}” yet: run notebook 1 or 2 first.")
    target = folder.with_name(f"{folder.name}.zip")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", strict_timestamps=False) as archive:
        for path in progress(files, "packing"):
            archive.write(path, path.relative_to(folder.parent))
    return partial.replace(target)


def unpack(path: str | Path) -> Concept:
    """Bring a concept back from a zip that `pack` made.

    A concept of the same name that is here already stays as it is, unless the zip holds each of its
    files unchanged: then what is missing is added.

    Returns:
        The concept; with default settings, not yet saved, if the zip holds pictures only.

    Raises:
        UserError: it is no zip of a concept, is damaged, would write outside its folder, grows beyond
            reason, or a different concept of that name is here. Nothing has changed then.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file “{path.name}” here: upload it first, or give its path.")
    root = places.concepts_root()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with (
            zipfile.ZipFile(path) as archive,
            tempfile.TemporaryDirectory(suffix=".partial", dir=root) as folder,
        ):
            members = _safe_members(archive, path.stat().st_size)
            for member in progress(members, "unpacking"):
                archive.extract(member, folder)
            return _move_in(Path(folder), root)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"“{path.name}” is damaged or no zip: pack and copy it again.") from error


def _handle(concept: Concept | str) -> Concept:
    """A name is as good as a concept: its settings are not needed, and may not be there yet."""
    return Concept.make(concept) if isinstance(concept, str) else concept


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".partial":
            yield path


def _safe_members(archive: zipfile.ZipFile, packed_size: int) -> list[zipfile.ZipInfo]:
    members = [info for info in archive.infolist() if not _SYSTEM_FILES & {*_parts(info)}]
    # zipfile never writes more than the size that a member declares, so the sum is a bound.
    if len(members) > _MOST_FILES or sum(info.file_size for info in members) > _MOST_GROWTH * packed_size:
        raise UserError("This zip would grow beyond reason when unpacked: pack the concept again.")
    for info in members:
        if info.flag_bits & 1:
            raise UserError("This zip is locked with a password: pack the concept without one.")
        if not _stays_inside(info):
            raise UserError(f"This zip would write outside its folder ({info.filename}): it is left alone.")
    return members


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(info.filename).parts


def _stays_inside(info: zipfile.ZipInfo) -> bool:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    elsewhere = info.filename.startswith("/") or ".." in _parts(info)
    windows_path = "\\" in info.filename or ":" in info.filename
    return not (is_link or elsewhere or windows_path)


def _move_in(unpacked: Path, root: Path) -> Concept:
    concept = _concept_in(unpacked)
    new, here = unpacked / concept.name, root / concept.name
    for path in _files(here):
        twin = new / path.relative_to(here)
        if not twin.is_file() or not filecmp.cmp(path, twin, shallow=False):
            raise UserError(
                f"A different concept “{concept.name}” is here already ({path.relative_to(here)} is not the "
                "same): rename or delete its folder first."
            )
    for path in _files(new):
        target = here / path.relative_to(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    return concept


def _concept_in(unpacked: Path) -> Concept:
    folders = list(unpacked.iterdir())
    if len(folders) != 1 or not folders[0].is_dir():
        raise UserError("This zip does not hold one concept's folder: make it with `pack`.")
    concept = Concept.make(folders[0].name)
    settings = folders[0] / "concept.json"
    if not settings.is_file():
        return concept
    try:
        concept = Concept.model_validate_json(settings.read_bytes())
    except ValidationError as error:
        raise UserError("The settings in this zip (concept.json) are damaged: pack it again.") from error
    if concept.name != folders[0].name:
        raise UserError(f"The folder in this zip must be named as its concept is: {concept.name}.")
    return concept
