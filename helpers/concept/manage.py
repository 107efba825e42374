"""Deleting a concept: it goes to a folder that is not shown, from where it can be brought back."""

import filecmp
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, PngImagePlugin
from pydantic import ValidationError
from safetensors.torch import load_file

from ..common import places
from ..common.errors import UserError
from ..common.progress import progress
from ..export.files import PROGRAMS, export_for
from ..inference.png import Picture, PictureSettings, read_settings, save_picture
from ..model.base_model import load_tokenizers, save_pipeline
from ..model.tokens import check_words
from ..training.control import check_at_rest
from ..training.records import INPUTS_FILE, SUMMARY_FILE
from .concept import Concept
from .embedding import load_rows, read_rows, save_result, save_rows
from .overview import concept_folder, concept_names, in_bytes, overview

FOLDER = ".trash"


def delete_concept(name: str, sure: bool = False) -> str:
    """Move a concept's folder to `.trash/` in the root of concepts; asked once more before.

    Args:
        sure: False asks, and changes nothing.

    Returns:
        The question, or what was done.

    Raises:
        UserError: there is no such concept, or its word is being learned right now.
    """
    folder = concept_folder(name)
    check_at_rest(folder)
    if not sure:
        return f'{question(name)} If you mean it: delete_concept("{name}", sure=True).'
    target = _trash() / str(1 + max(map(int, _numbers()), default=0)) / name
    target.parent.mkdir(parents=True)
    folder.rename(target)
    return f'{name} is in the trash: restore_concept("{name}") brings it back.'


def question(name: str) -> str:
    """What deleting a concept would do, as a question that names what there is to lose.

    Raises:
        UserError: there is no such concept.
    """
    one = overview(name)
    learned = f" and the learned word {one.concept.placeholder_token}" if one.state == "learned" else ""
    return (
        f"Delete {name}, {one.pictures} picture(s){learned}, {in_bytes(one.size)}? It goes to the trash "
        f"({places.concepts_root().name}/{FOLDER}/), and can be brought back until you empty that."
    )


def restore_concept(name: str) -> str:
    """Bring back the concept of that name that was deleted last.

    Raises:
        UserError: the trash has none of that name, or another one has the name now.
    """
    found = [path for path in in_trash() if path.name == name]
    if not found:
        there = ", ".join(sorted({path.name for path in in_trash()})) or "(it is empty)"
        raise UserError(f"The trash has no concept “{name}”: choose one of these: {there}.")
    target = places.concepts_root() / name
    if target.exists():
        raise UserError(f"There is another concept “{name}” now: rename that first.")
    found[-1].rename(target)
    found[-1].parent.rmdir()
    return f"{name} is back."


def in_trash() -> list[Path]:
    """The folders of deleted concepts, the one deleted last at the end."""
    return [
        folder for number in sorted(_numbers(), key=int) for folder in sorted((_trash() / number).iterdir())
    ]


def empty_trash(sure: bool = False) -> str:
    """Erase what was deleted, for good; asked once more before.

    Args:
        sure: False asks, and changes nothing.

    Returns:
        The question, or what was done.
    """
    names = [path.name for path in in_trash()]
    if not names:
        return "The trash is empty."
    if not sure:
        return f"{erasing_question()} If you mean it: empty_trash(sure=True)."
    shutil.rmtree(_trash())
    return f"Erased: {', '.join(names)}."


def erasing_question() -> str:
    """What emptying the trash would do, as a question."""
    size = sum(path.stat().st_size for path in _trash().rglob("*") if path.is_file())
    names = ", ".join(path.name for path in in_trash())
    return f"Erase {names} ({in_bytes(size)}) for good? Nothing brings them back."


def _trash() -> Path:
    return places.concepts_root() / FOLDER


def _numbers() -> list[str]:
    """Each deleted concept lies in a folder of its own, so that two of one name don't meet."""
    return [path.name for path in _trash().glob("*") if path.name.isdigit()]


# Giving a concept another name: its folder, its settings, and every file that speaks of either.
_PLAN = "grid"  # the text in a sheet's file that says how it was drawn


def rename_concept(name: str, new_name: str, placeholder_token: str | None = None) -> str:
    """Rename a concept and, with it or alone, its word. What was learned stays learned.

    A run goes on afterwards as it would have, a saved picture can be made again, and each program's
    file is there under the new name. Former runs, which were put aside, stay as they were.

    Args:
        new_name: may be the old one, where only the word is to change.
        placeholder_token: the new word; None: `<new_name>` where it was `<name>`, else as it was.

    Returns:
        One sentence on what was done.

    Raises:
        UserError: there is no such concept, the new name or word can't be used or is taken, or the
            word is being learned right now. Nothing was changed then.
    """
    folder = concept_folder(name)
    check_at_rest(folder)
    target = Concept.make(new_name).folder
    _check_free(folder, target)
    before = _settings(folder)
    after = before and _renamed(before, new_name, placeholder_token)
    rows = read_rows(before) if before and before.embeds_path.is_file() else None
    folder.rename(target)
    if after is None:
        return f"{name} is {new_name} now; it has pictures only."
    after.save()
    if rows:
        _rename_rows(after, rows)
    _rename_files(before, after)
    return f"{name} is {new_name} now, and its word {after.placeholder_token}."


def word_after(name: str, new_name: str, placeholder_token: str) -> str:
    """The word that a renamed concept gets unless told otherwise: it follows the name if it did so."""
    return f"<{new_name}>" if placeholder_token == f"<{name}>" else placeholder_token


def _check_free(folder: Path, target: Path) -> None:
    """On some machines names that differ in upper case only are the same folder."""
    if target.exists() and not target.samefile(folder):
        raise UserError(
            f"There is “{target.name}” already: choose another name than one of {', '.join(concept_names())}."
        )


def _settings(folder: Path) -> Concept | None:
    return Concept.load(folder.name) if (folder / "concept.json").is_file() else None


def _renamed(before: Concept, new_name: str, placeholder_token: str | None) -> Concept:
    word = placeholder_token or word_after(before.name, new_name, before.placeholder_token)
    after = before.changed(name=new_name, placeholder_token=word)
    if word != before.placeholder_token:
        check_words(after, load_tokenizers(after.base_model))
    return after


def _rename_rows(after: Concept, rows: list) -> None:
    """The result and the rows of each step: files for one text encoder have the word as their key."""
    save_result(after, rows)
    for part in ("steps", "replaced"):
        for path in sorted((after.training_folder / part).glob("*.safetensors")):
            save_rows(path, after, load_rows(path))


def _rename_files(before: Concept, after: Concept) -> None:
    _edit(
        after.training_folder / INPUTS_FILE, lambda made: made["concept"].update(_names(before, after, made))
    )
    _edit(after.training_folder / SUMMARY_FILE, lambda outcome: outcome.update(concept=after.name))
    _edit(after.folder / "scores.json", lambda scores: scores["said"].update(word=after.placeholder_token))
    for program in PROGRAMS:
        _rename_export(before, after, program)
    for path in sorted(after.grids_folder.rglob("*.png")):
        _rename_picture(before, after, path)
    for path in sorted(after.images_folder.glob("*.txt")):
        _rename_caption(before, path)
    if (after.folder / "report.html").is_file():
        from ..series.report import write_report

        write_report(after)
    if (after.folder / "pipeline").is_dir() and after.placeholder_token != before.placeholder_token:
        save_pipeline(after)


def _names(before: Concept, after: Concept, made: dict) -> dict[str, str]:
    """What a run was made with, under the new names: else it would be taken for another run."""
    same_word = made["concept"]["placeholder_token"] == before.placeholder_token
    return {"name": after.name} | ({"placeholder_token": after.placeholder_token} if same_word else {})


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file, whole or not at all. It keeps its time: by that a run's state is told."""
    if not path.is_file():
        return
    content, times = json.loads(path.read_text(encoding="utf-8")), path.stat()
    change(content)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.utime(partial, ns=(times.st_atime_ns, times.st_mtime_ns))
    partial.replace(path)


def _rename_export(before: Concept, after: Concept, program: str) -> None:
    old = after.export_folder / program / f"{before.name}.safetensors"
    if old.is_file():
        half = any(tensor.element_size() == 2 for tensor in load_file(old).values())
        if export_for(after, program, half) != old:
            old.unlink()


def _rename_picture(before: Concept, after: Concept, path: Path) -> None:
    """What a picture or a sheet was drawn with, under the new names; pixels and time stay."""
    times = path.stat()
    try:
        new = _rename_settings(before, after, path) or _rename_plan(before, after, path)
    except (UserError, OSError, ValueError):
        return  # from elsewhere, or damaged
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    if new != path:
        path.unlink()


def _rename_settings(before: Concept, after: Concept, path: Path) -> Path | None:
    """The picture in a file that is named by its settings, as all are; None where it is a sheet."""
    with Image.open(path) as image:
        if _PLAN in image.info:
            return None
        settings = read_settings(path)
        if settings.concept != before.name:
            return path
        changed = _with_names(settings.model_dump(), before, after)
        return save_picture(Picture(image.copy(), PictureSettings(**changed)), path.parent)


def _rename_plan(before: Concept, after: Concept, path: Path) -> Path:
    with Image.open(path) as image:
        plan = _with_names(json.loads(image.info[_PLAN]), before, after)
        texts = PngImagePlugin.PngInfo()
        texts.add_text(_PLAN, json.dumps(plan))
        partial = path.with_suffix(".partial")
        image.save(partial, format="PNG", pnginfo=texts)
    return partial.replace(path)


def _rename_caption(before: Concept, path: Path) -> None:
    """A picture's own sentences may have the word itself; `{}` stands for any."""
    text = path.read_bytes()
    if (word := before.placeholder_token.encode()) in text:
        partial = path.with_suffix(".partial")
        partial.write_bytes(text.replace(word, b"{}"))
        partial.replace(path)


def _with_names(value: Any, before: Concept, after: Concept) -> Any:
    """JSON with the new word wherever the old one stands, and the new name as its `concept`."""
    if isinstance(value, dict):
        changed = {key: _with_names(part, before, after) for key, part in value.items()}
        return changed | ({"concept": after.name} if value.get("concept") == before.name else {})
    if isinstance(value, list):
        return [_with_names(part, before, after) for part in value]
    word = rf"(?<!\w){re.escape(before.placeholder_token)}(?!\w)"
    return re.sub(word, lambda _: after.placeholder_token, value) if isinstance(value, str) else value


_MOST_FILES = 20_000
_MOST_GROWTH = 200  # times the size of the zip, when unpacked
_SYSTEM_FILES = {"__MACOSX", ".DS_Store"}  # what a Mac adds to a zip


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
