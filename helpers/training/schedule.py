"""The optimizer of a word's rows, and its learning rate over the run."""

from collections.abc import Iterable

import torch

from ..concept import TrainingSettings


def learning_rate(settings: TrainingSettings, processes: int) -> float:
    """The peak rate; with `scale_lr` times accumulation, batch and processes, as in the source's script."""
    if not settings.scale_lr:
        return settings.learning_rate
    samples = settings.gradient_accumulation_steps * settings.train_batch_size * processes
    return settings.learning_rate * samples


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainingSettings, processes: int
) -> torch.optim.Optimizer:
    """AdamW on the rows alone, in float32.

    `use_8bit_adam` takes bitsandbytes' AdamW. It changes nothing for a word's rows: tensors under
    4,096 elements stay in 32 bit there.
    """
    if settings.use_8bit_adam:
        from bitsandbytes.optim import AdamW8bit as AdamW
    else:
        from torch.optim import AdamW
    rate = learning_rate(settings, processes)
    return AdamW(list(parameters), lr=rate, weight_decay=settings.weight_decay)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> torch.optim.lr_scheduler.LRScheduler:
    """One of diffusers' schedules (`get_scheduler`), counted in optimizer steps."""
    from diffusers.optimization import get_scheduler

    return get_scheduler(
        settings.lr_scheduler,
        optimizer,
        num_warmup_steps=settings.lr_warmup_steps,
        num_training_steps=settings.max_train_steps,
    )
