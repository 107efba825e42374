"""From losses to moved rows: gradient, processes, clipping, optimizer, norm."""

import torch

from .draws import DrawsTogether
from .learner import Learner
from .memory import WORDS_AT_ONCE
from .model import Model
from .processes import Processes
from .step import training_step


def make_scaler(model: Model) -> torch.amp.GradScaler:
    """Loss scaling, which float16 needs; for any other format it does nothing."""
    return torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16)


def update(
    model: Model, learners: list[Learner], scaler: torch.amp.GradScaler, processes: Processes
) -> list[float]:
    """One optimizer step for every learner, on batches mixed over a few of them at a time.

    A scaled gradient that overflows only skips that learner's step; the scaler then halves its scale.

    Returns:
        The mean loss of each learner, over accumulation and processes.
    """
    groups = [learners[first : first + WORDS_AT_ONCE] for first in range(0, len(learners), WORDS_AT_ONCE)]
    total = torch.zeros(len(learners), device=model.device)
    for _ in range(learners[0].settings.gradient_accumulation_steps):
        total += torch.cat([_add_gradients(model, group, scaler) for group in groups])
    for learner in learners:
        _move(learner, scaler, processes)
    scaler.update()
    return processes.average(total).tolist()


def _add_gradients(model: Model, learners: list[Learner], scaler: torch.amp.GradScaler) -> torch.Tensor:
    """One step and its way back to the rows; each learner's mean loss as a share of its accumulation."""
    losses = training_step(model, DrawsTogether([learner.draws for learner in learners]))
    means = losses.view(len(learners), -1).mean(dim=1) / learners[0].settings.gradient_accumulation_steps
    scaler.scale(means.sum()).backward()
    return means.detach()


def _move(learner: Learner, scaler: torch.amp.GradScaler, processes: Processes) -> None:
    parameters = learner.parameters()
    for rows in parameters:
        rows.grad = processes.average(rows.grad)
    scaler.unscale_(learner.optimizer)
    if learner.settings.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, learner.settings.max_grad_norm)
    scaler.step(learner.optimizer)
    learner.schedule.step()
    learner.keep_norms()
    learner.optimizer.zero_grad()
