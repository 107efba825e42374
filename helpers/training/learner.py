"""One word being learned: its rows, their optimizer, and how far it has come."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..concept.concept import Concept
from ..concept.embedding import Rows
from ..dataset.dataset import TextualInversionDataset
from ..model.tokens import LearnedRows, initializer_ids, install_rows
from .batches import Draws, DrawsTogether, to_latents
from .forecast import WORDS_AT_ONCE
from .model import Model
from .optimizer import make_optimizer, make_schedule
from .processes import Processes
from .step import all_the_same, min_snr, training_step


@dataclass
class Best:
    """The rows with the highest score so far."""

    step: int
    score: float
    rows: Rows


@dataclass
class Progress:
    """Where a run stands, and what it has seen."""

    step: int = 0
    seconds: float = 0.0
    fixed_losses: dict[int, float] = field(default_factory=dict)  # by step
    best: Best | None = None


class Learner:
    """A concept in a run, alone or beside others on the same frozen model.

    Attributes:
        rows: a look-up for each text encoder (one, for XL two), put there by `install_rows`.
        dataset: what it is shown, as latents.
        draws: the batches of its steps.
        progress: see `Progress`.
        ended: None while it runs, then `learned`, `ceiling`, `stopped` or `failed`.
        reason: the same as a sentence.
    """

    def __init__(self, concept: Concept, model: Model, processes: Processes):
        self.concept, self.settings = concept, concept.training
        self.rows = _install(concept, model)
        self.starting_norms = [rows.detach().norm(dim=1) for rows in self.parameters()]
        self.optimizer = make_optimizer(self.parameters(), self.settings, processes.count)
        self.schedule = make_schedule(self.optimizer, self.settings)
        self.dataset = TextualInversionDataset(concept, model.components.tokenizers, model.resolution)
        self.latents = to_latents(self.dataset, model)
        weights = _weights(concept, model)
        self.draws = Draws(self.dataset, self.settings, processes, weights, model.device)
        self.progress = Progress()
        self.ended: str | None = None
        self.reason = ""

    def parameters(self) -> list[torch.nn.Parameter]:
        """The only parameters of a run: (vectors, width) for each text encoder, float32."""
        return [learned.rows for learned in self.rows]

    def copy_rows(self) -> Rows:
        """The rows as they are now, on the CPU."""
        return [rows.detach().cpu().clone() for rows in self.parameters()]

    @torch.no_grad()
    def set_rows(self, values: Rows) -> None:
        for rows, value in zip(self.parameters(), values, strict=True):
            rows.copy_(value)

    def keep_norms(self) -> None:
        """Apply the norm's rule (`norms`) after an optimizer step."""
        rates = self.schedule.get_last_lr()
        for rows, start, rate in zip(self.parameters(), self.starting_norms, rates, strict=True):
            NORM_RULES[self.settings.norm](rows, start, rate)

    def norms(self) -> list[float]:
        """The length of each row, encoder after encoder."""
        return torch.cat([rows.detach().norm(dim=1) for rows in self.parameters()]).tolist()

    def is_finite(self) -> bool:
        return all(bool(rows.detach().isfinite().all()) for rows in self.parameters())

    def end(self, how: str, reason: str) -> None:
        self.ended, self.reason = how, reason

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        progress, best = self.progress, self.progress.best
        return {
            "rows": self.copy_rows(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draws": self.draws.state_dict(),
            "step": progress.step,
            "seconds": progress.seconds,
            "fixed_losses": dict(progress.fixed_losses),
            "best": best and {"step": best.step, "score": best.score, "rows": best.rows},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set_rows(state["rows"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        taken = state["step"] * self.settings.gradient_accumulation_steps
        self.draws.load_state_dict({"batches": taken, **state["draws"]})  # the version before did not count
        best = state["best"] and Best(**state["best"])
        self.progress = Progress(state["step"], state["seconds"], dict(state["fixed_losses"]), best)


def _install(concept: Concept, model: Model) -> list[LearnedRows]:
    """New rows in each text encoder.

    Raises:
        UserError: the placeholder is taken, or the initializer has more tokens than there are vectors.
    """
    components = model.components
    return [
        install_rows(
            tokenizer,
            text_encoder,
            concept.placeholder_tokens,
            initializer_ids(tokenizer, concept.initializer_token, concept.vectors),
        )
        for tokenizer, text_encoder in zip(components.tokenizers, components.text_encoders, strict=True)
    ]


def _weights(concept: Concept, model: Model):
    gamma = concept.training.snr_gamma
    if gamma is None:
        return all_the_same
    return partial(min_snr, model.scheduler, gamma=gamma)


# The length of a learned row: a row that grows without end drowns the rest of the prompt.


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
    """Pull each norm back to where it started, by the fraction min(1, 100 x learning rate) a step.

    The rule of cloneofsimo/lora's pivotal tuning (`cli_lora_pti.py`), with the initializer's norm in
    place of its constant. Arguments as in `hold`.
    """
    pull = min(1.0, 100 * learning_rate)
    norms = rows.norm(dim=1)
    _scale_to(rows, norms + pull * (start - norms))


def _scale_to(rows: torch.Tensor, norms: torch.Tensor) -> None:
    rows.mul_((norms / rows.norm(dim=1).clamp_min(1e-12)).unsqueeze(1))


NORM_RULES = {"free": free, "hold": hold, "decay": decay}

# From losses to moved rows: gradient, processes, clipping, optimizer, norm.


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
    """One step and its way back to the rows; each learner's mean loss over its accumulation."""
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
