"""A learned word as a file for each program that draws with Stable Diffusion.

Stable Diffusion 1.x and 2.x: one key `emb_params`, which AUTOMATIC1111, Forge, ComfyUI and InvokeAI
all read; for diffusers the key is the word. XL: `clip_l` and `clip_g`. A program takes its word from
the file's name, so the file is named as the concept.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ..common.errors import UserError
from ..concept.concept import Concept
from ..concept.embedding import read_rows
from .formats import RULES

PROGRAMS = tuple(RULES)
_WORDS = {"comfyui": "embedding:{}", "invokeai": "<{}>"}


def export_for(concept: Concept, program: str, half: bool = False) -> Path:
    """Write `export/<program>/<concept>.safetensors`.

    Args:
        program: one of `PROGRAMS`.
        half: float16 instead of float32, half the size; every program reads both.

    Raises:
        UserError: nothing was learned yet, or the program is not one of ours.
    """
    if program not in PROGRAMS:
        raise UserError(f"There is no export for “{program}”: choose one of these: {', '.join(PROGRAMS)}.")
    rows = [row.to(torch.float16 if half else torch.float32) for row in read_rows(concept)]
    path = concept.export_folder / program / f"{concept.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(dict(zip(_keys(concept, program, len(rows)), rows, strict=True)), partial, _about(concept))
    return partial.replace(path)


def word_in(concept: Concept, program: str) -> str:
    """What a person types into the program's prompt to mean the concept.

    Raises:
        UserError: the program is not one of ours.
    """
    if program not in PROGRAMS:
        raise UserError(f"There is no export for “{program}”: choose one of these: {', '.join(PROGRAMS)}.")
    if program == "diffusers":
        return concept.placeholder_token
    return _WORDS.get(program, "{}").format(concept.name)


def _keys(concept: Concept, program: str, encoders: int) -> tuple[str, ...]:
    if encoders == 2:
        return ("clip_l", "clip_g")
    return (concept.placeholder_token,) if program == "diffusers" else ("emb_params",)


def _about(concept: Concept) -> dict[str, str]:
    """Notes in the file's header, which the loaders skip."""
    return {
        "format": "pt",
        "name": concept.name,
        "placeholder_token": concept.placeholder_token,
        "base_model": Path(concept.base_model).name,
    }
