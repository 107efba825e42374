"""Operations on a whole concept: delete and restore it, rename it, pack it as a zip and unpack it.

What can't be done raises a `UserError`, and nothing has changed then.
"""

import filecmp
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..common import places
from ..common.errors import UserError
from ..common.files import atomic_file, holder, write_whole
from ..common.progress import progress
from ..common.sheets import counted
from .concept import LOCK_FILE, SETTINGS_FILE, Concept
from .embedding import read_rows, rename_key, save_result
from .overview import Overview, concept_folder, concept_names, in_bytes

TRASH = ".trash"


def delete_concept(name: str, sure: bool = False) -> str:
    """Move a concept's folder to `.trash/` in the root of concepts; only ask, unless `sure`."""
    folder = concept_folder(name)
    check_not_training(folder)
    if not sure:
        return f'{question(name)} If you mean it: delete_concept("{name}", sure=True).'
    number = 1 + max((int(path.parent.name) for path in in_trash()), default=0)
    target = _trash() / str(number) / name  # a folder each: several may have the same name
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    return f'{name} is in the trash: restore_concept("{name}") brings it back.'


def question(name: str) -> str:
    """A question before a concept is deleted, which names what there is to lose."""
    one = Overview(name)
    learned = f" and the learned word {one.concept.placeholder_token}" if one.state == "learned" else ""
    return (
        f"Delete {name}, {counted(one.pictures, 'picture')}{learned}, {in_bytes(one.size)}? It goes to the "
        f"trash ({places.concepts_root().name}/{TRASH}/), and can be brought back until you empty that."
    )


def restore_concept(name: str) -> str:
    """Bring back the concept of that name that was deleted last, and return a sentence."""
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
    """The folders of deleted concepts, the last deleted one at the end."""
    found = [path for path in _trash().glob("*/*") if path.parent.name.isdigit()]
    return sorted(found, key=lambda path: int(path.parent.name))


def empty_trash(sure: bool = False) -> str:
    """Erase all deleted concepts for good; only ask, unless `sure`."""
    names = ", ".join(path.name for path in in_trash())
    if not names:
        return "The trash is empty."
    if not sure:
        return f"{erasing_question()} If you mean it: empty_trash(sure=True)."
    shutil.rmtree(_trash())
    return f"Erased: {names}."


def erasing_question() -> str:
    """A question before the trash is emptied."""
    size = sum(path.stat().st_size for path in _trash().rglob("*") if path.is_file())
    names = ", ".join(path.name for path in in_trash())
    return f"Erase {names} ({in_bytes(size)}) for good? Nothing brings them back."


def _trash() -> Path:
    return places.concepts_root() / TRASH


def check_not_training(folder: Path) -> None:
    """A `UserError` while a run has the concept in this folder."""
    if at_work := holder(folder / LOCK_FILE):
        raise UserError(
            f"The word of “{folder.name}” is being learned now, by {at_work}: press Stop in notebook 4 first."
        )


# Renaming: the folder, the word, and the files that other programs take the word from.


def rename_concept(name: str, new_name: str, placeholder_token: str | None = None) -> str:
    """Rename a concept, its word, or both, and return a sentence. What was learned stays learned.

    A stopped run can go on, a saved picture can be drawn again, and the files for other programs get the new
    name. Saved pictures keep their prompt, runs that were put aside stay as they were, and the report becomes
    `report-<name>.html`.

    Args:
        new_name: may be the old one, to change the word only.
        placeholder_token: the new word; None: `<new_name>` if it was `<name>`, else as it was.
    """
    folder = concept_folder(name)
    check_not_training(folder)
    target = Concept.make(new_name).folder
    # On some machines names that differ only in case are the same folder.
    if target.exists() and not target.samefile(folder):
        names = ", ".join(concept_names())
        raise UserError(f"There is “{new_name}” already: choose another name than one of {names}.")
    before = Concept.load(name) if (folder / SETTINGS_FILE).exists() else None
    after = before and _renamed(before, new_name, placeholder_token)
    rows = read_rows(before) if before and before.embeds_path.is_file() else None
    folder.rename(target)
    if after is None:
        return f"{name} is {new_name} now; it has pictures only."
    after.save()
    if rows:
        save_result(after, rows)
    _rename_files(before, after)
    return f"{name} is {new_name} now, and its word {after.placeholder_token}."


def word_after(name: str, new_name: str, placeholder_token: str) -> str:
    """The default for the word of a renamed concept: it follows the name if it did before."""
    return f"<{new_name}>" if placeholder_token == f"<{name}>" else placeholder_token


def _renamed(before: Concept, new_name: str, placeholder_token: str | None) -> Concept:
    old = before.placeholder_token
    word = placeholder_token or word_after(before.name, new_name, old)
    if word == old:
        return before.changed(name=new_name)
    earlier = [one for one in (*before.earlier_words, old) if one != word]
    after = before.changed(name=new_name, placeholder_token=word, earlier_words=earlier)
    if not re.fullmatch(r"<[^<>|]+>", word):
        plain = word.strip("<>|")
        raise UserError(
            f"Write the new word in angle brackets, for example <{plain}>, so that no model knows it yet."
        )
    return after


def _rename_files(before: Concept, after: Concept) -> None:
    """The files with the name or the word in them: for other programs, diffusers and other trainers."""
    for path in sorted(after.export_folder.rglob(f"{before.file_name}.*")):
        if path.suffix == ".safetensors":
            path.rename(path.with_name(f"{after.file_name}{path.suffix}"))
        else:  # pickles, pictures and zips have the word inside: they have to be exported again
            path.unlink()
    old, new = before.placeholder_token, after.placeholder_token
    for path in sorted(after.export_folder.rglob("*.safetensors")):
        rename_key(path, old.lower(), new.lower())  # as diffusers reads prompts
    if new != old:
        for kept in ("steps", "replaced"):
            for path in sorted((after.training_folder / kept).glob("*.safetensors")):
                rename_key(path, old, new)
        _rename_tokens(before, after)
    for path in sorted(after.images_folder.glob("*.txt")):  # captions, in which `{}` stands for any word
        caption = path.read_bytes()
        if old.encode() in caption:
            write_whole(path, caption.replace(old.encode(), b"{}"))
    if after.report_path.is_file():
        after.report_path.replace(after.folder / f"report-{before.name}.html")


def _rename_tokens(before: Concept, after: Concept) -> None:
    """In the saved pipeline, if there is one, the word is in the JSON files of its tokenizers."""
    tokens = {}
    for old, new in zip(before.placeholder_tokens, after.placeholder_tokens, strict=True):
        for is_escaped in (True, False):  # both ways to write an accent occur
            tokens[json.dumps(old, ensure_ascii=is_escaped)] = json.dumps(new)
    any_token = re.compile("|".join(map(re.escape, tokens)))
    for path in sorted((after.folder / "pipeline").glob("tokenizer*/*.json")):
        content = path.read_text(encoding="utf-8")
        renamed = any_token.sub(lambda token: tokens[token[0]], content)
        if renamed != content:
            write_whole(path, renamed)


# A concept as a zip, to take it to another machine.
_MOST_FILES = 20_000
_MOST_GROWTH = 200  # times the size of the zip, when unpacked
_SYSTEM_FILES = {"__MACOSX", ".DS_Store"}  # what a Mac adds to a zip


def pack(concept: Concept | str) -> Path:
    """Put everything of a concept, given as such or by its name, into `<root>/<name>.zip`."""
    folder = (Concept.make(concept) if isinstance(concept, str) else concept).folder
    files = list(_files(folder))
    if not files:
        raise UserError(f"There is nothing in the concept “{folder.name}” yet: run notebook 1 or 2 first.")
    target = folder.with_name(f"{folder.name}.zip")
    with atomic_file(target) as partial, zipfile.ZipFile(partial, "w", strict_timestamps=False) as archive:
        for path in progress(files, "packing"):
            archive.write(path, _portable(path.relative_to(folder.parent)))
    return target


def unpack(path: str | Path) -> Concept:
    """Unpack a concept that `pack` packed; one with pictures only gets default settings, not saved.

    A concept of the same name that is here already stays as it is, unless the zip has all of its files
    unchanged: then the missing ones are added.
    """
    path, given = places.find_path(path, Path.cwd()), path
    if path is None or not path.is_file():
        name = Path(given).name[-80:]
        raise UserError(f"There is no file “{name}” here: upload it first, or give its path.")
    root = places.make_folder(places.concepts_root())
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
        raise UserError(f"“{path.name}” is damaged or not a zip: pack and copy it again.") from error


def _portable(path: Path) -> str:
    """A path in a zip that any system can unpack: characters that Windows forbids become `%3A`."""
    escaped = (
        re.sub(r'[<>:"\\|?*\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", part) for part in path.parts
    )
    return "/".join(escaped)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".partial":
            yield path


def _safe_members(archive: zipfile.ZipFile, packed_size: int) -> list[zipfile.ZipInfo]:
    members = [
        info for info in archive.infolist() if _SYSTEM_FILES.isdisjoint(PurePosixPath(info.filename).parts)
    ]
    # zipfile never writes more than the size that a member declares, so the sum is a bound.
    if len(members) > _MOST_FILES or sum(info.file_size for info in members) > _MOST_GROWTH * packed_size:
        raise UserError("This zip is far too large when unpacked: pack the concept again.")
    for info in members:
        if info.flag_bits & 1:
            raise UserError("This zip is locked with a password: pack the concept without one.")
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        is_outside = info.filename.startswith("/") or ".." in PurePosixPath(info.filename).parts
        is_windows_path = "\\" in info.filename or ":" in info.filename
        if is_link or is_outside or is_windows_path:
            raise UserError(
                f"This zip would write outside its folder ({info.filename}): nothing was unpacked."
            )
    return members


def _move_in(unpacked: Path, root: Path) -> Concept:
    folders = list(unpacked.iterdir())
    if len(folders) != 1 or not folders[0].is_dir():
        raise UserError("This zip does not hold one concept's folder: make it with `pack`.")
    concept, settings = Concept.make(folders[0].name), folders[0] / SETTINGS_FILE
    if settings.exists():
        try:
            concept = Concept.read(settings)
        except UserError as error:
            raise UserError("The settings in this zip (concept.json) are damaged: pack it again.") from error
    new, here = unpacked / concept.name, root / concept.name
    known = {_portable(path.relative_to(here)): path for path in _files(here)}
    for name, path in known.items():
        twin = new / name
        if not twin.is_file() or not filecmp.cmp(path, twin, shallow=False):
            raise UserError(
                f"A different concept “{concept.name}” is here already ({path.relative_to(here)} is not the "
                "same): rename or delete its folder first."
            )
    for path in _files(new):
        if (name := path.relative_to(new)).as_posix() not in known:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(here / name)
    return concept
