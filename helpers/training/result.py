"""The rows of a word as files that diffusers reads."""

import io
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ..concept import Concept
from .checkpoint import write_whole

Rows = list[torch.Tensor]  # one (vectors, width) a text encoder, float32, on the CPU

_TWO_ENCODERS = ("clip_l", "clip_g")


def as_state(concept: Concept, rows: Rows) -> dict[str, torch.Tensor]:
    """Name the rows as `load_textual_inversion` wants them.

    One text encoder: {placeholder: (vectors, width)}. Two (XL): `clip_l` and `clip_g`, each of which
    is loaded into its own encoder.
    """
    keys = _TWO_ENCODERS if len(rows) == 2 else (concept.placeholder_token,)
    return {key: tensor.detach().float().cpu().contiguous() for key, tensor in zip(keys, rows, strict=True)}


def save_rows(path: Path, concept: Concept, rows: Rows) -> Path:
    """Write one safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, save(as_state(concept, rows)))


def save_result(concept: Concept, rows: Rows) -> Path:
    """Write `learned_embeds.safetensors` and, for older programs, `learned_embeds.bin`."""
    pickled = io.BytesIO()
    torch.save(as_state(concept, rows), pickled)
    concept.folder.mkdir(parents=True, exist_ok=True)
    write_whole(concept.embeds_path.with_suffix(".bin"), pickled.getvalue())
    return save_rows(concept.embeds_path, concept, rows)


def load_rows(path: Path) -> Rows:
    """Read what `save_rows` wrote, in the order of the text encoders."""
    state = load_file(path)
    keys = _TWO_ENCODERS if "clip_g" in state else tuple(state)
    return [state[key] for key in keys]


def step_path(concept: Concept, step: int) -> Path:
    """Where the rows of a checkpoint are kept: the result as it would have been at that step."""
    return concept.training_folder / "steps" / f"{step:05d}.safetensors"


def saved_steps(concept: Concept) -> list[int]:
    """The steps whose rows were kept, in order, 0 being the initializer."""
    return sorted(int(path.stem) for path in step_path(concept, 0).parent.glob("*.safetensors"))
