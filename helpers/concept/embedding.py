"""The learned rows on disk: the result of training, and those of its checkpoints.

A file that is missing, damaged or of another kind raises a `UserError`.
"""

import contextlib
import filecmp
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from ..common.errors import DAMAGED, UserError
from ..common.files import write_whole
from .concept import Concept, saved_concepts

# One tensor (vectors, width) per text encoder (XL: CLIP-L, then CLIP-G), float32, on the CPU.
Rows = list[torch.Tensor]
_TWO_ENCODERS = ("clip_l", "clip_g")
NAMELESS = ""  # the key of a tensor that is a whole file: diffusers reads such a file, too
# What the header of a file for other programs can say.
NOTES = ("word", "initializer", "base_model", "steps", "license", "made_with")


def read_rows(concept: Concept, step: int | None = None) -> Rows:
    """The rows of a concept's word, at a training step; None: the result."""
    path = concept.embeds_path if step is None else step_path(concept, step)
    if not path.is_file() and step is None:
        raise UserError(f"{concept.placeholder_token} has not been learned yet: run notebook 4 first.")
    if not path.is_file():
        kept = ", ".join(map(str, saved_steps(concept))) or "(none: run notebook 4 first)"
        raise UserError(f"Step {step} was not kept: choose one of these: {kept}.")
    return load_rows(path)


def turned(concept: Concept, step: int, fraction: float) -> Rows:
    """The rows of a training step, scaled to the initializer's norm and turned towards it.

    Test-time Embedding Adjustment (TEA, arXiv 2506.22685), without training: with m the normalized learned
    row, c the normalized initializer's row, and t the angle between them,

        norm of the initializer's row * (sin((1 - fraction) t) m + sin(fraction t) c) / sin t

    In the paper's own code the fraction is `rho`, and `alpha`, the weight of the initializer's norm, is 1.

    Args:
        fraction: from 0, the rows as learned, also their norm, to 1, the initializer (the class word).
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"{fraction} can't be used: give a number from 0 (as learned) to 1 (the class word).")
    learned = read_rows(concept, step)
    if fraction == 0:
        return learned
    return [_turned(*pair, fraction) for pair in zip(learned, read_rows(concept, 0), strict=True)]


def _turned(learned: torch.Tensor, start: torch.Tensor, fraction: float) -> torch.Tensor:
    own, word = (torch.nn.functional.normalize(rows, dim=1) for rows in (learned, start))
    angle = torch.acos((own * word).sum(dim=1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    between = (torch.sin((1 - fraction) * angle) * own + torch.sin(fraction * angle) * word) / sine
    direction = torch.where(sine > 1e-4, between, own)  # else they are parallel
    return direction * start.norm(dim=1, keepdim=True)


def use_step(concept: Concept, step: int, fraction: float = 0.0) -> Path:
    """Make the rows of a training step, as learned or `turned`, the result, and return its file.

    A result that no step's file holds is first copied to `training/replaced/`.
    """
    rows = turned(concept, step, fraction)
    result, replaced = concept.embeds_path, concept.training_folder / "replaced"
    earlier = sorted(replaced.glob("*.safetensors"))
    kept = [*earlier, *(step_path(concept, one) for one in saved_steps(concept))]
    if result.is_file() and not any(filecmp.cmp(result, path, shallow=False) for path in kept):
        save_rows(replaced / f"{len(earlier) + 1:05d}.safetensors", concept, load_rows(result))
    return save_result(concept, rows)


def step_path(concept: Concept, step: int) -> Path:
    """The file with the rows of a checkpoint, in the format of the result."""
    return concept.training_folder / "steps" / f"{step:05d}.safetensors"


def saved_steps(concept: Concept) -> list[int]:
    """The steps whose rows were kept, in order; 0 is the initializer."""
    return sorted(int(path.stem) for path in step_path(concept, 0).parent.glob("*.safetensors"))


def result_step(concept: Concept) -> int | None:
    """The step whose rows are the result; None if no kept step has them."""
    for step in saved_steps(concept):
        if filecmp.cmp(step_path(concept, step), concept.embeds_path, shallow=False):
            return step
    return None


def as_state(concept: Concept, rows: Rows) -> dict[str, torch.Tensor]:
    """Rows by the keys that `load_textual_inversion` wants: the placeholder; for XL `clip_l`, `clip_g`."""
    keys = _TWO_ENCODERS if len(rows) == 2 else (concept.placeholder_token,)
    return {key: tensor.detach().float().cpu().contiguous() for key, tensor in zip(keys, rows, strict=True)}


def save_rows(path: Path, concept: Concept, rows: Rows) -> Path:
    """Write one safetensors file, whole or not at all."""
    return write_whole(path, save(as_state(concept, rows)))


def save_result(concept: Concept, rows: Rows) -> Path:
    """Write `learned_embeds.safetensors` and, for older programs, `learned_embeds.bin`."""
    pickled = io.BytesIO()
    torch.save(as_state(concept, rows), pickled)
    write_whole(concept.embeds_path.with_suffix(".bin"), pickled.getvalue())
    return save_rows(concept.embeds_path, concept, rows)


def update_result_key(concept: Concept) -> None:
    """Make the concept's word the result's key, if notebook 2 has changed the word since."""
    rows = read_rows(concept)
    if as_state(concept, rows).keys() != read_tensors(concept.embeds_path).keys():
        save_result(concept, rows)


def load_rows(path: Path) -> Rows:
    """Read what `save_rows` wrote."""
    state = read_tensors(path)
    keys = _TWO_ENCODERS if "clip_g" in state else tuple(state)
    return [row.float() for row in checked_rows(path, (state.get(key) for key in keys))]


def read_tensors(path: Path) -> dict[str, Any]:
    """The content of an embedding's file; a pickle can't run code.

    A list of dictionaries, which ComfyUI reads, becomes one, with the list's index before each key.
    """
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{path.name} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`."
        )
    torch.serialization.add_safe_globals([torch.nn.ParameterDict])  # in old files
    try:
        if content[8:9] == b"{":  # a safetensors file's header, after its length; the suffix may be wrong
            return load(content)
        content = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if isinstance(content, list):
            parts = enumerate(content)
            return {f"{number}.{key}": rows for number, part in parts for key, rows in part.items()}
        if isinstance(content, torch.Tensor):
            return {NAMELESS: content}
        return dict(content)
    except DAMAGED as error:
        raise UserError(
            f"{path.name} is empty or damaged, or holds more than numbers and so is never loaded: run "
            "notebook 4 again, or fetch the file again."
        ) from error


def checked_rows(path: Path, rows: Iterable[Any]) -> Rows:
    """Check that each is a table of finite numbers, (vectors, width); a single row becomes a table."""
    tables = []
    for row in rows:
        is_table = isinstance(row, torch.Tensor) and row.is_floating_point() and row.ndim in (1, 2)
        if not is_table or not row.numel() or row.layout != torch.strided or row.is_meta:
            raise no_rows_error(path)
        if not row.float().isfinite().all():
            raise UserError(f"{path.name} holds NaN or infinity in place of numbers: run notebook 4 again.")
        tables.append(torch.atleast_2d(row.detach()))
    if not tables:
        raise no_rows_error(path)
    return tables


def no_rows_error(path: Path) -> UserError:
    return UserError(f"{path.name} holds no rows of a word: choose an embedding's file.")


def hash_rows(rows: Rows) -> str:
    """A hash of a word's rows, stored in saved pictures."""
    return hashlib.sha256(b"".join(own.numpy().tobytes() for own in rows)).hexdigest()[:16]


def concept_with_rows(hash_: str, step: int | None, near: Path) -> Concept | None:
    """The concept whose result, or training step, has the rows of that hash (`hash_rows`), if any.

    If several have, the one with the file `near` in its folder goes first.
    """
    folders = Path(near).resolve().parents
    for name in sorted(saved_concepts(), key=lambda name: Concept.make(name).folder.resolve() not in folders):
        with contextlib.suppress(UserError):
            concept = Concept.load(name)
            if hash_rows(read_rows(concept, step)) == hash_:
                return concept
    return None


def rename_key(path: Path, word: str, new_word: str) -> None:
    """Replace `word` by `new_word` as a key, and in the notes, of a safetensors file.

    Only `NOTES` stay in its header: it once held the concept's name, too. A damaged file stays as it is.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return
    if notes.get("word") == word:
        notes["word"] = new_word
    renamed = {new_word if key == word else key: rows for key, rows in tensors.items()}
    write_whole(path, with_notes(renamed, notes))


def with_notes(tensors: dict[str, torch.Tensor], notes: dict[str, str | None]) -> bytes:
    """The bytes of a safetensors file with `notes`, those of `NOTES` that are not empty, in its header.

    `safetensors` writes them in random order. Here the same content always gives the same bytes: the header's
    length in eight bytes, JSON, blanks up to a multiple of eight.
    """
    plain = save(tensors)
    notes = {key: notes[key] for key in NOTES if notes.get(key)}
    end = 8 + int.from_bytes(plain[:8], "little")
    header = {"__metadata__": notes, **json.loads(plain[8:end])} if notes else json.loads(plain[8:end])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[end:]
