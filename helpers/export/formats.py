"""How each program reads an embedding file, as a rule of its own.

Written from the programs' own loaders (AUTOMATIC1111, Forge and SD.Next `create_embedding_from_data`,
ComfyUI `load_embed`, InvokeAI `TextualInversionModelRaw`, diffusers
`load_textual_inversion`), so that a file can be read back here as it will be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common.errors import UserError
from ..concept.embedding import checked_rows, read_tensors

_XL_KEYS = {"clip_l", "clip_g"}


@dataclass(frozen=True)
class ReadBack:
    """What a program finds in a file.

    `word` is what a person types into that program's prompt, None where they choose it on loading;
    `rows` has a tensor of shape (vectors, width) for each text encoder, for XL CLIP-L's, then CLIP-G's.
    """

    word: str | None
    rows: list[torch.Tensor]


def read_back(path: Path, program: str, widths: Sequence[int]) -> ReadBack:
    """Read an embedding file by a program's rule.

    Args:
        path: a `.safetensors` file, or a pickle (`.pt`, `.bin`), which is read with `weights_only`.
        program: one of `RULES`.
        widths: those of the model's text encoders: 768 for 1.x, 1024 for 2.x, 768 and 1280 for XL.

    Raises:
        UserError: that program would not take the file for one embedding of such a model.
    """
    tensors = read_tensors(path)
    try:
        word, rows = RULES[program](tensors, path, len(widths))
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise UserError(f"{path.name} holds no rows of a word: choose an embedding's file.") from error
    rows = checked_rows(path, rows)
    found = [row.shape[-1] for row in rows]
    if found != list(widths):
        raise UserError(f"{path.name} has rows {found} wide where the model's are {list(widths)}.")
    return ReadBack(word, rows)


def _automatic1111(tensors: dict, path: Path, encoders: int) -> tuple:
    if "string_to_param" in tensors:
        return path.stem, [_only_one(tensors["string_to_param"], path)]
    if set(tensors) >= _XL_KEYS:
        return path.stem, [tensors["clip_l"], tensors["clip_g"]]
    return path.stem, [_only_one(tensors, path)]


def _comfyui(tensors: dict, path: Path, encoders: int) -> tuple:
    """Each text encoder takes the tensor of its name, or else the first one."""
    word = f"embedding:{path.stem}"
    if "string_to_param" in tensors:
        return word, [_first(tensors["string_to_param"])] * encoders
    names = ("clip_l", "clip_g")[:encoders]
    return word, [tensors.get(name, _first(tensors)) for name in names]


def _invokeai(tensors: dict, path: Path, encoders: int) -> tuple:
    word = f"<{path.stem}>"
    if "string_to_param" in tensors:
        return word, [_first(tensors["string_to_param"])]
    if "emb_params" in tensors:
        return word, [tensors["emb_params"]]
    if set(tensors) >= _XL_KEYS:
        return word, [tensors["clip_l"], tensors["clip_g"]]
    if _first(tensors).ndim != 1:
        raise UserError(f"InvokeAI does not take {path.name} for an embedding: its key must be emb_params.")
    return word, [_first(tensors)]


def _diffusers(tensors: dict, path: Path, encoders: int) -> tuple:
    """A dict of one key, which is the word; XL's two tensors are handed over one by one, with a word."""
    if set(tensors) == _XL_KEYS:
        return None, [tensors["clip_l"], tensors["clip_g"]]
    if "string_to_param" in tensors:
        return tensors["name"], [tensors["string_to_param"]["*"]]
    return next(iter(tensors)), [_only_one(tensors, path)]


def _only_one(tensors: dict, path: Path) -> torch.Tensor:
    if len(tensors) != 1:
        raise UserError(
            f"{path.name} holds {len(tensors)} tensors ({', '.join(tensors)}), not one embedding."
        )
    return _first(tensors)


def _first(tensors: dict) -> torch.Tensor:
    return next(iter(tensors.values()))


RULES = {
    "automatic1111": _automatic1111,
    "forge": _automatic1111,
    "sdnext": _automatic1111,
    "comfyui": _comfyui,
    "invokeai": _invokeai,
    "diffusers": _diffusers,
}
