"""The learned rows on disk: the result, and those that the training kept on its way."""

import filecmp
from pathlib import Path

import torch
from safetensors import SafetensorError

from .concept import Concept
from .errors import UserError
from .training.result import load_rows, save_result, save_rows, saved_steps, step_path


def read_rows(concept: Concept, step: int | None = None) -> list[torch.Tensor]:
    """The rows of a concept's word, one tensor for each text encoder (XL: CLIP-L, then CLIP-G).

    Args:
        step: the training step whose rows are wanted; None: the result.

    Returns:
        float32 tensors of shape (vectors, width), on the CPU.

    Raises:
        UserError: nothing was learned yet, that step was not kept, or the file is damaged.
    """
    path = _result(concept) if step is None else _kept(concept, step)
    try:
        return load_rows(path)
    except SafetensorError as error:
        raise UserError(f"{path.name} is damaged: run notebook 4 again.") from error


def use_step(concept: Concept, step: int) -> Path:
    """Make the rows of a training step the result.

    A result that would be lost by this is kept in `training/replaced/`.

    Returns:
        The file now holding the result.

    Raises:
        UserError: that step was not kept, or its file is damaged; then nothing was changed.
    """
    rows = read_rows(concept, step)
    _keep_result(concept)
    return save_result(concept, rows)


def _keep_result(concept: Concept) -> None:
    replaced = concept.training_folder / "replaced"
    kept = [step_path(concept, step) for step in saved_steps(concept)] + sorted(
        replaced.glob("*.safetensors")
    )
    result = concept.embeds_path
    if result.is_file() and not any(filecmp.cmp(result, path, shallow=False) for path in kept):
        number = 1 + len(list(replaced.glob("*.safetensors")))
        save_rows(replaced / f"{number:05d}.safetensors", concept, load_rows(result))


def _result(concept: Concept) -> Path:
    if not concept.embeds_path.is_file():
        raise UserError(f"{concept.placeholder_token} has not been learned yet: run notebook 4 first.")
    return concept.embeds_path


def _kept(concept: Concept, step: int) -> Path:
    path = step_path(concept, step)
    if not path.is_file():
        kept = ", ".join(map(str, saved_steps(concept))) or "(none: run notebook 4 first)"
        raise UserError(f"Step {step} was not kept: choose one of these: {kept}.")
    return path
