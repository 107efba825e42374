"""AdamW's steps, turned so that a word moves along all directions alike.

Pictures, noise levels and sentences that were drawn for a batch pull a word along a few loud directions.
AdamW weighs every number by itself and can't tell these directions from the quiet ones. A word is so few
numbers that one can afford to weigh directions.
"""

import torch

WINDOW = 100  # steps whose gradients are remembered
DAMPING = 1.0  # of a number's mean square: it keeps directions that hardly matter from being blown up

_LEAST = 1e-30


def turn_steps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Turn every step that an AdamW (torch's, or another) takes from now on; the optimizer is returned.

    AdamW says how far to go; the direction is that of full-matrix adaptive methods (GGT, Agarwal et al.
    2019, arXiv 1806.02958): (G G^T + damping)^(-1/2) m, where the columns of G are the last gradients and
    m is their momentum. Length of one optimizer and direction of another: “grafting” (Agarwal et al. 2020,
    arXiv 2002.11803), so that a learning rate means what it means for AdamW.

    The gradients are kept in the optimizer's state, and so in its `state_dict`.
    """
    starts: dict[torch.nn.Parameter, torch.Tensor] = {}

    def remember(*_) -> None:
        moving = (rows for group in optimizer.param_groups for rows in group["params"])
        starts.update((rows, rows.detach().clone()) for rows in moving if rows.grad is not None)

    @torch.no_grad()
    def turn(*_) -> None:
        for group in optimizer.param_groups:
            for rows in starts.keys() & set(group["params"]):
                if rows.grad.isfinite().all():  # else AdamW's own step shows it to who looks
                    start = starts[rows].mul_(1 - group["lr"] * group["weight_decay"])
                    _turn(rows, start, optimizer.state[rows], momentum=group["betas"][0])
        starts.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(turn)
    return optimizer


def _turn(rows: torch.Tensor, start: torch.Tensor, state: dict, momentum: float) -> None:
    newest = rows.grad.flatten().unsqueeze(0)
    earlier = state["gradients"] if "gradients" in state else newest.new_zeros(WINDOW, rows.numel())
    state["gradients"] = torch.cat([earlier[1:], newest])
    direction = full_matrix_direction(state["gradients"], momentum).view_as(rows)
    length = (rows - start).norm() / direction.norm().clamp_min(_LEAST)
    rows.copy_(start - length * direction)


def full_matrix_direction(gradients: torch.Tensor, momentum: float) -> torch.Tensor:
    """(G G^T + damping)^(-1/2) m, by way of the small G^T G: no matrix of numbers by numbers is made.

    Since m = G w, it is G (G^T G + damping)^(-1/2) w.

    Args:
        gradients: G^T, (steps, numbers), the oldest first, zeros for steps before the first one.
        momentum: what a gradient's weight w is multiplied by at each later step.

    Returns:
        (numbers,); its length means nothing.
    """
    steps, numbers = gradients.shape
    unit = gradients / gradients.norm().clamp_min(_LEAST)
    powers, directions = torch.linalg.eigh(unit @ unit.T)  # the powers sum to 1
    roots = (powers.clamp_min(0) + DAMPING / numbers).sqrt()
    weights = momentum ** torch.arange(steps - 1, -1, -1, device=gradients.device)
    return (weights @ directions / roots) @ directions.T @ unit
