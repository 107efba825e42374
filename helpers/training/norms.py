"""The length of a learned row: a row that grows without end drowns the rest of the prompt."""

import torch


@torch.no_grad()
def free(rows: torch.Tensor, start: torch.Tensor, learning_rate: float) -> None:
    """Let the norm go where training takes it."""


@torch.no_grad()
def hold(rows: torch.Tensor, start: torch.Tensor, learning_rate: float) -> None:
    """Give each row the norm that it started with: only its direction is learned.

    Args:
        rows: (vectors, width), changed in place.
        start: (vectors,), the norms of the rows training started from.
        learning_rate: the step's; not used.
    """
    _scale_to(rows, start)


@torch.no_grad()
def decay(rows: torch.Tensor, start: torch.Tensor, learning_rate: float) -> None:
    """Pull each norm back to where it started, by the share min(1, 100 x learning rate) a step.

    The rule of cloneofsimo/lora's pivotal tuning (`cli_lora_pti.py`), with the initializer's norm in
    place of its constant. Arguments as in `hold`.
    """
    pull = min(1.0, 100 * learning_rate)
    norms = rows.norm(dim=1)
    _scale_to(rows, norms + pull * (start - norms))


def _scale_to(rows: torch.Tensor, norms: torch.Tensor) -> None:
    rows.mul_((norms / rows.norm(dim=1).clamp_min(1e-12)).unsqueeze(1))


NORM_RULES = {"free": free, "hold": hold, "decay": decay}
