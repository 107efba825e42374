"""A learned word as a file for each program that draws with Stable Diffusion.

Stable Diffusion 1.x and 2.x: one key `emb_params`, which AUTOMATIC1111, Forge, ComfyUI and InvokeAI
all read; for diffusers the key is the word. XL: `clip_l` and `clip_g`. A program takes its word from
the file's name, so the file is named as the concept.
"""

from pathlib import Path

import torch
from safetensors.torch import save

from ..common.errors import UserError
from ..common.files import write_whole
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
    _check(program)
    rows = [row.to(torch.float16 if half else torch.float32) for row in read_rows(concept)]
    tensors = dict(zip(_keys(concept, program, len(rows)), rows, strict=True))
    path = concept.export_folder / program / f"{concept.name}.safetensors"
    # Loaders skip it. A second note would stand before or after it by chance, and the file not be the same.
    about = {"base_model": Path(concept.base_model).name}
    return write_whole(path, save(tensors, about))


def word_in(concept: Concept, program: str) -> str:
    """What a person types into the program's prompt to mean the concept.

    Raises:
        UserError: the program is not one of ours.
    """
    _check(program)
    if program == "diffusers":
        return _diffusers_word(concept)
    return _WORDS.get(program, "{}").format(concept.name)


def _check(program: str) -> None:
    if program not in PROGRAMS:
        raise UserError(f"There is no export for “{program}”: choose one of these: {', '.join(PROGRAMS)}.")


def _diffusers_word(concept: Concept) -> str:
    """In lower case: diffusers reads prompts so, and else finds the first of the word's rows only."""
    return concept.placeholder_token.lower()


def _keys(concept: Concept, program: str, encoders: int) -> tuple[str, ...]:
    if encoders == 2:
        return ("clip_l", "clip_g")
    return (_diffusers_word(concept),) if program == "diffusers" else ("emb_params",)
