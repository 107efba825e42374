"""The optimizer of a word's rows, and its learning rate over the run."""

from collections.abc import Iterable
from functools import partial

import torch

from ..concept.concept import TrainingSettings
from ..model.libraries import bitsandbytes

# Adam moves each number of a row by about the learning rate at a step, so the rate is in the numbers' own
# unit. On Stable Diffusion 1.5, whose numbers are near 0.014, this comes to 0.011. That is twice
# AUTOMATIC1111's 0.005, but for the first steps only: see `inverse_time`.
FRACTION_OF_THE_NUMBERS = 0.8
RESTARTS = 3  # of `cosine_with_restarts` in a run
FALLS_FROM = 30  # step from which `inverse_time` falls


def learning_rate(settings: TrainingSettings, processes: int, rows: torch.Tensor) -> float:
    """The peak rate for rows (vectors, width) as the initializer left them.

    Without one in the settings it is a fraction of the rows' typical number (their root mean square).
    With `scale_lr` it is multiplied by accumulation, batch and processes, as in the source's script.
    """
    rate = settings.learning_rate or FRACTION_OF_THE_NUMBERS * rows.detach().square().mean().sqrt().item()
    if not settings.scale_lr:
        return rate
    return rate * settings.gradient_accumulation_steps * settings.train_batch_size * processes


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainingSettings, processes: int
) -> torch.optim.Optimizer:
    """AdamW on the rows alone, in float32; those of each text encoder have a rate of their own.

    Its steps are turned: see `full_matrix`. `use_8bit_adam` takes bitsandbytes' AdamW. It changes nothing
    for a word's rows: tensors under 4,096 elements stay in 32 bit there.
    """
    groups = [{"params": [rows], "lr": learning_rate(settings, processes, rows)} for rows in parameters]
    kind = bitsandbytes().optim.AdamW8bit if settings.use_8bit_adam else torch.optim.AdamW
    return turn_steps(kind(groups, weight_decay=settings.weight_decay))


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> torch.optim.lr_scheduler.LRScheduler:
    """One of diffusers' schedules (`get_scheduler`), or `inverse_time`, counted in optimizer steps.

    `piecewise_constant` falls to three tenths after half of the run, and to one tenth after three quarters.
    """
    if settings.lr_scheduler == "inverse_time":
        warmup = settings.lr_warmup_steps
        return torch.optim.lr_scheduler.LambdaLR(optimizer, partial(inverse_time, warmup=warmup))

    from diffusers.optimization import get_scheduler

    half, three_quarters = settings.max_train_steps // 2, settings.max_train_steps * 3 // 4
    return get_scheduler(
        settings.lr_scheduler,
        optimizer,
        step_rules=f"1:{half},0.3:{three_quarters},0.1",
        num_cycles=RESTARTS,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
    )


def inverse_time(steps: int, warmup: int) -> float:
    """The fraction of the peak rate after some steps: it rises, stays, then falls as one over the steps.

    It is the classic fall of stochastic approximation (Robbins and Monro 1951), and needs no known end: a
    run that stops by itself, or is given more steps later, has nearly come to rest wherever it ends.
    """
    step = steps + 1
    return min(1.0, step / max(1, warmup), max(FALLS_FROM, warmup) / step)


# AdamW's steps, turned so that a word moves along all directions alike.
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
