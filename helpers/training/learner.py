"""One word being learned: its rows, their optimizer, and how far it has come."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..concept import Concept
from ..tokens import LearnedRows, initializer_ids, install_rows
from . import loss_weights
from .draws import Draws
from .latents import latent_source
from .model import Model
from .norms import NORM_RULES
from .processes import Processes
from .result import Rows
from .schedule import make_optimizer, make_schedule
from .sentences import token_ids, training_sentences, with_word


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
        draws: where everything random of its steps comes from.
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
        self.latents = latent_source(concept, model)
        sentences = training_sentences(concept)
        ids = token_ids(model.components.tokenizers, with_word(concept, sentences.templates), model.device)
        weights = _weights(concept, model)
        self.draws = Draws(self.latents, ids, self.settings, processes, weights, sentences.captions)
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
        self.draws.load_state_dict(state["draws"])
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
        return loss_weights.all_the_same
    return partial(loss_weights.min_snr, model.scheduler, gamma=gamma)
