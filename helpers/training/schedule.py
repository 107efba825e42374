"""The optimizer of a word's rows, and its learning rate over the run."""

from collections.abc import Iterable
from functools import partial

import torch

from ..concept import TrainingSettings
from ..quiet import bitsandbytes
from .full_matrix import turn_steps

# Adam moves each number of a row by about the learning rate at a step, so the rate is in the numbers' own
# unit. On Stable Diffusion 1.5, whose numbers are near 0.014, this comes to 0.011. That is twice
# AUTOMATIC1111's 0.005, but for the first steps only: see `inverse_time`.
SHARE_OF_THE_NUMBERS = 0.8
RESTARTS = 3  # of `cosine_with_restarts` in a run
FALLS_FROM = 30  # step from which `inverse_time` falls


def learning_rate(settings: TrainingSettings, processes: int, rows: torch.Tensor) -> float:
    """The peak rate for rows (vectors, width) as the initializer left them.

    Without one in the settings it is a share of the rows' typical number (their root mean square).
    With `scale_lr` it is multiplied by accumulation, batch and processes, as in the source's script.
    """
    rate = settings.learning_rate or SHARE_OF_THE_NUMBERS * rows.detach().square().mean().sqrt().item()
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
    """The share of the peak rate after some steps: it rises, stays, then falls as one over the steps.

    It is the classic fall of stochastic approximation (Robbins and Monro 1951), and needs no known end: a
    run that stops by itself, or is given more steps later, has nearly come to rest wherever it ends.
    """
    step = steps + 1
    return min(1.0, step / max(1, warmup), max(FALLS_FROM, warmup) / step)
