"""The optimizer of a word's rows, and its learning rate over the run."""

from collections.abc import Iterable

import torch

from ..concept import TrainingSettings
from ..quiet import bitsandbytes
from .full_matrix import FullMatrix

# Adam moves each number of a row by about the learning rate at a step, so the rate is in the numbers' own
# unit. On Stable Diffusion 1.5, whose numbers are near 0.014, this comes to AUTOMATIC1111's 0.005.
SHARE_OF_THE_NUMBERS = 0.36
RESTARTS = 3  # of `cosine_with_restarts` in a run


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
    if settings.use_8bit_adam:
        AdamW = bitsandbytes().optim.AdamW8bit
    else:
        from torch.optim import AdamW

    class FullMatrixAdamW(FullMatrix, AdamW):
        pass

    groups = [{"params": [rows], "lr": learning_rate(settings, processes, rows)} for rows in parameters]
    return FullMatrixAdamW(groups, weight_decay=settings.weight_decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> torch.optim.lr_scheduler.LRScheduler:
    """One of diffusers' schedules (`get_scheduler`), counted in optimizer steps.

    `piecewise_constant` falls to three tenths after half of the run, and to one tenth after three quarters.
    """
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
