"""One word being learned: its rows, their optimizer and its learning rate, and how far it has come."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from ..concept.concept import Concept, TrainingSettings
from ..concept.embedding import Rows
from ..dataset.dataset import TextualInversionDataset
from ..model.base_model import MINIATURE
from ..model.machine import bitsandbytes
from ..model.tokens import initializer_ids, install_rows
from .batches import Draws, DrawsTogether, LatentCache
from .model import Model, load_model
from .processes import FreeCores, Processes
from .step import all_the_same, min_snr, training_step

WORDS_AT_ONCE = 4  # of a run of many, in one forward pass: more words take more time, not more memory


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
        dataset: what it is shown, as latents, which `latents` makes.
        draws: the batches of its steps.
    """

    def __init__(self, concept: Concept, model: Model, processes: Processes):
        self.concept, self.settings = concept, concept.training
        parts, words, start = model.components, concept.placeholder_tokens, concept.initializer_token
        self.rows = [
            install_rows(tokenizer, encoder, words, initializer_ids(tokenizer, start, concept.vectors))
            for tokenizer, encoder in zip(parts.tokenizers, parts.text_encoders, strict=True)
        ]
        self.starting_norms = [rows.detach().norm(dim=1) for rows in self.parameters()]
        self.optimizer = make_optimizer(self.parameters(), self.settings, processes.count)
        self.schedule = make_schedule(self.optimizer, self.settings)
        self.dataset = TextualInversionDataset(concept, parts.tokenizers, model.resolution)
        self.latents = self.dataset.transform = LatentCache(self.dataset, model)
        gamma = self.settings.snr_gamma
        weights = partial(min_snr, model.scheduler, gamma=gamma) if gamma else all_the_same
        self.draws = Draws(self.dataset, self.settings, processes, weights, model.device)
        self.progress = Progress()

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
        """Apply the norm's rule after an optimizer step."""
        rates = self.schedule.get_last_lr()
        for rows, start, rate in zip(self.parameters(), self.starting_norms, rates, strict=True):
            keep_norm(self.settings.norm, rows, start, rate)

    def norms(self) -> list[float]:
        """The length of each row, encoder after encoder."""
        return torch.cat([rows.detach().norm(dim=1) for rows in self.parameters()]).tolist()

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "rows": self.copy_rows(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draws": self.draws.state_dict(),
            **asdict(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set_rows(state["rows"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        taken = state["step"] * self.settings.gradient_accumulation_steps
        self.draws.load_state_dict({"batches": taken, **state["draws"]})  # the version before did not count
        best = state["best"] and Best(**state["best"])
        self.progress = Progress(state["step"], state["seconds"], dict(state["fixed_losses"]), best)


# The optimizer of a word's rows, and its learning rate over the run.

# Adam moves each number of a row by about the learning rate at a step, so the rate is in the numbers' own
# unit. On Stable Diffusion 1.5, whose numbers are near 0.014, this is 0.011 (AUTOMATIC1111's is 0.005).
FRACTION_OF_THE_NUMBERS = 0.8
RESTARTS = 3  # of `cosine_with_restarts` in a run
FALLS_FROM = 30  # step from which `inverse_time` falls


def learning_rate(settings: TrainingSettings, processes: int, rows: torch.Tensor) -> float:
    """The peak rate for rows (vectors, width) as the initializer left them.

    Without one in the settings it is a fraction of the rows' root mean square. With `scale_lr` it is
    multiplied by accumulation, batch and processes, as in the source's script.
    """
    rate = settings.learning_rate or FRACTION_OF_THE_NUMBERS * rows.detach().square().mean().sqrt().item()
    if not settings.scale_lr:
        return rate
    return rate * settings.gradient_accumulation_steps * settings.train_batch_size * processes


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainingSettings, processes: int
) -> torch.optim.Optimizer:
    """AdamW with turned steps on the rows alone; those of each text encoder have a rate of their own."""
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

    The classic fall of stochastic approximation (Robbins and Monro 1951), which needs no known end.
    """
    step = steps + 1
    return min(1.0, step / max(1, warmup), max(FALLS_FROM, warmup) / step)


# AdamW's steps, turned so that a word moves along all directions alike.
WINDOW = 100  # steps whose gradients are remembered
DAMPING = 1.0  # of a number's mean square: it keeps directions that hardly matter from being blown up
_LEAST = 1e-30


def turn_steps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Turn every step that an AdamW (torch's, or another) takes from now on; the optimizer is returned.

    AdamW says how far to go, so that a learning rate means what it means there (“grafting”, Agarwal et al.
    2020, arXiv 2002.11803); the direction is that of full-matrix adaptive methods (GGT, Agarwal et al.
    2019, arXiv 1806.02958): (G G^T + damping)^(-1/2) m, where the columns of G are the last gradients, which
    the optimizer's state keeps, and m is their momentum.
    """
    starts: dict[torch.nn.Parameter, torch.Tensor] = {}

    def remember(*_) -> None:
        moving = (rows for group in optimizer.param_groups for rows in group["params"])
        starts.update((rows, rows.detach().clone()) for rows in moving if rows.grad is not None)

    @torch.no_grad()
    def turn(*_) -> None:
        for group in optimizer.param_groups:
            for rows in starts.keys() & set(group["params"]):
                if rows.grad.isfinite().all():  # else AdamW's step leaves NaN in the rows, which ends the run
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

    Since m = G w, it is G (G^T G + damping)^(-1/2) w: (numbers,), whose length means nothing.

    Args:
        gradients: G^T, (steps, numbers), the oldest first, zeros for steps before the first one.
        momentum: what a gradient's weight w is multiplied by at each later step.
    """
    steps, numbers = gradients.shape
    unit = gradients / gradients.norm().clamp_min(_LEAST)
    powers, directions = torch.linalg.eigh(unit @ unit.T)  # the powers sum to 1
    roots = (powers.clamp_min(0) + DAMPING / numbers).sqrt()
    weights = momentum ** torch.arange(steps - 1, -1, -1, device=gradients.device)
    return (weights @ directions / roots) @ directions.T @ unit


# The length of a learned row: a row that grows without end drowns the rest of the prompt.


@torch.no_grad()
def keep_norm(rule: str, rows: torch.Tensor, start: torch.Tensor, learning_rate: float) -> None:
    """Change the norms of rows (vectors, width), in place; they started with those of `start`, (vectors,).

    `free`: not at all. `hold`: back to the start. `decay`: back by the fraction min(1, 100 x learning rate),
    as cloneofsimo/lora's pivotal tuning (`cli_lora_pti.py`), whose start is a constant.
    """
    if rule == "free":
        return
    norms = rows.norm(dim=1)
    wanted = start if rule == "hold" else norms + min(1.0, 100 * learning_rate) * (start - norms)
    rows.mul_((wanted / norms.clamp_min(1e-12)).unsqueeze(1))


def open_learner(concept: Concept) -> tuple[Model, Learner]:
    """A concept's model and its learner in this process, on the GPU where there is one, but in no run."""
    with closing(Processes()) as processes:
        model = load_model(concept, processes.device)
        return model, Learner(concept, model, processes)


# From losses to moved rows: gradient, processes, clipping, optimizer, norm.


class Run(NamedTuple):
    """What the learners of a run share: the frozen model, the processes, the loss scaling, the threads."""

    model: Model
    processes: Processes
    scaler: torch.amp.GradScaler
    cores: FreeCores


@contextmanager
def open_run(concept: Concept, processes: Processes) -> Iterator[Run]:
    """Load a concept's model; errors as for `load_model`."""
    with FreeCores(concept.base_model == MINIATURE and processes.is_one_cpu) as cores:
        model = load_model(concept, processes.device)
        cores.adjust()
        yield Run(model, processes, make_scaler(model), cores)


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
        take_step(learner, learner.settings.max_grad_norm, scaler, processes)
        learner.keep_norms()
    scaler.update()
    return processes.average(total).tolist()


def _add_gradients(model: Model, learners: list[Learner], scaler: torch.amp.GradScaler) -> torch.Tensor:
    """One step and its way back to the rows; each learner's mean loss over its accumulation."""
    losses = training_step(model, DrawsTogether([learner.draws for learner in learners]))
    means = losses.view(len(learners), -1).mean(dim=1) / learners[0].settings.gradient_accumulation_steps
    scaler.scale(means.sum()).backward()
    return means.detach()


def take_step(
    learner: Any, max_grad_norm: float | None, scaler: torch.amp.GradScaler, processes: Processes
) -> None:
    """Move what learns (it has parameters, optimizer, schedule) by its gradients' mean over the processes."""
    for parameter in learner.parameters():
        parameter.grad = processes.average(parameter.grad)
    scaler.unscale_(learner.optimizer)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(learner.parameters(), max_grad_norm)
    scaler.step(learner.optimizer)
    learner.schedule.step()
    learner.optimizer.zero_grad()
