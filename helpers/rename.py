"""Giving a concept another name: its folder, its settings, and every file that speaks of either."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin
from safetensors.torch import load_file

from .base_model import load_tokenizers
from .concept import Concept
from .embeddings import read_rows
from .errors import UserError
from .export import PROGRAMS, export_for
from .overview import concept_folder, concept_names
from .png_settings import Picture, PictureSettings, read_settings, save_picture
from .tokens import check_words
from .training.former import MADE_WITH
from .training.outcome import NAME as OUTCOME
from .training.result import load_rows, save_result, save_rows
from .training.resume import check_at_rest
from .training.whole_pipeline import save_pipeline

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
    _edit(after.training_folder / MADE_WITH, lambda made: made["concept"].update(_names(before, after, made)))
    _edit(after.training_folder / OUTCOME, lambda outcome: outcome.update(concept=after.name))
    _edit(after.folder / "scores.json", lambda scores: scores["said"].update(word=after.placeholder_token))
    for program in PROGRAMS:
        _rename_export(before, after, program)
    for path in sorted(after.grids_folder.rglob("*.png")):
        _rename_picture(before, after, path)
    for path in sorted(after.images_folder.glob("*.txt")):
        _rename_caption(before, path)
    if (after.folder / "report.html").is_file():
        from .report_page import write_report

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
