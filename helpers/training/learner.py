"""One word being learned: its rows, optimizer, learning rate and progress; and the optimizer step."""

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

WORDS_AT_ONCE = 4  # in one forward pass: further words take more time, not more memory


@dataclass
class Best:
    """The rows with the highest score so far."""

    step: int
    score: float
    rows: Rows


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    fixed_losses: dict[int, float] = field(default_factory=dict)  # by step
    best: Best | None = None


class Learner:
    """A concept in a run, alone or with others on the same frozen model.

    Attributes:
        rows: the look-up that `install_rows` put into each text encoder (one, for XL two).
        dataset: its samples, as latents from the cache `latents`.
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
        """Apply the setting `norm` after an optimizer step."""
        rates = self.schedule.get_last_lr()
        for rows, start, rate in zip(self.parameters(), self.starting_norms, rates, strict=True):
            keep_norm(self.settings.norm, rows, start, rate)

    def norms(self) -> list[float]:
        """The norm of each row, encoder after encoder."""
        return torch.cat([rows.detach().norm(dim=1) for rows in self.parameters()]).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
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
        self.draws.load_state_dict({"batches": taken, **state["draws"]})  # older versions did not count them
        best = state["best"] and Best(**state["best"])
        self.progress = Progress(state["step"], state["seconds"], dict(state["fixed_losses"]), best)


# The optimizer of a word's rows, and its learning rate over the run.

# Adam moves each number by about the learning rate in a step, so the rate is relative to the numbers' size.
# In Stable Diffusion 1.5 that is about 0.014, which gives a rate of 0.011 (AUTOMATIC1111's is 0.005).
FRACTION_OF_THE_NUMBERS = 0.8
RESTARTS = 3  # of `cosine_with_restarts` in a run
FALLS_FROM = 30  # step from which `inverse_time` falls


def learning_rate(settings: TrainingSettings, processes: int, rows: torch.Tensor) -> float:
    """The peak rate: the setting, or a fraction of the root mean square of the initial rows (vectors, width).

    With `scale_lr` it is multiplied by accumulation, batch size and processes, as in diffusers' script.
    """
    rate = settings.learning_rate or FRACTION_OF_THE_NUMBERS * rows.detach().square().mean().sqrt().item()
    if not settings.scale_lr:
        return rate
    return rate * settings.gradient_accumulation_steps * settings.train_batch_size * processes


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], settings: TrainingSettings, processes: int
) -> torch.optim.Optimizer:
    """AdamW with turned steps on the rows alone, with a learning rate of its own for each text encoder."""
    groups = [{"params": [rows], "lr": learning_rate(settings, processes, rows)} for rows in parameters]
    kind = bitsandbytes().optim.AdamW8bit if settings.use_8bit_adam else torch.optim.AdamW
    return turn_steps(kind(groups, weight_decay=settings.weight_decay))


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings
) -> torch.optim.lr_scheduler.LRScheduler:
    """One of diffusers' schedules (`get_scheduler`), or `inverse_time`, in optimizer steps.

    `piecewise_constant` falls to 0.3 after half of the run, and to 0.1 after three quarters.
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
    """The fraction of the peak rate after some steps: warm-up, a plateau, then 1 over the steps.

    The classic decay of stochastic approximation (Robbins and Monro 1951); it needs no known end.
    """
    step = steps + 1
    return min(1.0, step / max(1, warmup), max(FALLS_FROM, warmup) / step)


# AdamW's steps, turned so that a word moves along all directions alike.
WINDOW = 100  # steps whose gradients are kept
DAMPING = 1.0  # in units of a number's mean square; it keeps weak directions from being amplified
_LEAST = 1e-30


def turn_steps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Change the direction of every later step of an AdamW optimizer, and return the optimizer.

    The length stays AdamW's, so that learning rates mean the same (“grafting”, Agarwal et al. 2020, arXiv
    2002.11803). The direction is that of full-matrix adaptive methods (GGT, Agarwal et al. 2019, arXiv
    1806.02958): (G G^T + damping)^(-1/2) m, where the columns of G are the last gradients, kept in the
    optimizer's state, and m is their momentum.
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
    """(G G^T + damping)^(-1/2) m up to a factor, (numbers,), without making the large matrix G G^T.

    Since m = G w, it is G (G^T G + damping)^(-1/2) w.

    Args:
        gradients: G^T, (steps, numbers), the oldest first, zeros for steps before the first one.
        momentum: by which a gradient's weight w is multiplied at each later step.
    """
    steps, numbers = gradients.shape
    unit = gradients / gradients.norm().clamp_min(_LEAST)
    powers, directions = torch.linalg.eigh(unit @ unit.T)  # the powers sum to 1
    roots = (powers.clamp_min(0) + DAMPING / numbers).sqrt()
    weights = momentum ** torch.arange(steps - 1, -1, -1, device=gradients.device)
    return (weights @ directions / roots) @ directions.T @ unit


# The norm of a learned row: one that grows without limit drowns the rest of the prompt.


@torch.no_grad()
def keep_norm(rule: str, rows: torch.Tensor, start: torch.Tensor, learning_rate: float) -> None:
    """Rescale rows (vectors, width) in place, towards the norms `start` (vectors,) that they began with.

    `free`: not at all. `hold`: fully. `decay`: by the fraction min(1, 100 x learning rate), as in
    cloneofsimo/lora's pivotal tuning (`cli_lora_pti.py`), which has a constant in place of `start`.
    """
    if rule == "free":
        return
    norms = rows.norm(dim=1)
    wanted = start if rule == "hold" else norms + min(1.0, 100 * learning_rate) * (start - norms)
    rows.mul_((wanted / norms.clamp_min(1e-12)).unsqueeze(1))


def open_learner(concept: Concept) -> tuple[Model, Learner]:
    """A concept's model and its learner outside of a run, on the GPU if there is one."""
    with closing(Processes()) as processes:
        model = load_model(concept, processes.device)
        return model, Learner(concept, model, processes)


# The optimizer step: gradient, mean over the processes, clipping, optimizer, norm.


class Run(NamedTuple):
    """What the learners of a run share: the frozen model, processes, loss scaling and threads."""

    model: Model
    processes: Processes
    scaler: torch.amp.GradScaler
    cores: FreeCores


@contextmanager
def open_run(concept: Concept, processes: Processes) -> Iterator[Run]:
    """Load a concept's model for a run; errors as for `load_model`."""
    on_one_cpu = processes.count == 1 and processes.device.type == "cpu"
    with closing(FreeCores(on_one_cpu and concept.base_model == MINIATURE)) as cores:
        model = load_model(concept, processes.device)
        cores.adjust()
        yield Run(model, processes, make_scaler(model), cores)


def make_scaler(model: Model) -> torch.amp.GradScaler:
    """Loss scaling for float16; with any other format it does nothing."""
    return torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16)


def update(run: Run, learners: list[Learner]) -> list[float]:
    """One optimizer step of every learner; a few of them share each forward pass.

    If a learner's scaled gradient overflows, its step is skipped, and the scaler halves its scale.

    Returns:
        Each learner's loss, averaged over accumulation and processes.
    """
    groups = [learners[first : first + WORDS_AT_ONCE] for first in range(0, len(learners), WORDS_AT_ONCE)]
    total = torch.zeros(len(learners), device=run.model.device)
    for _ in range(learners[0].settings.gradient_accumulation_steps):
        total += torch.cat([_add_gradients(run, group) for group in groups])
    for learner in learners:
        take_step(run, learner, learner.settings.max_grad_norm)
        learner.keep_norms()
    run.scaler.update()
    return run.processes.average(total).tolist()


def _add_gradients(run: Run, learners: list[Learner]) -> torch.Tensor:
    """Forward and backward pass; each learner's mean loss, divided by the accumulation steps."""
    losses = training_step(run.model, DrawsTogether([learner.draws for learner in learners]))
    means = losses.view(len(learners), -1).mean(dim=1) / learners[0].settings.gradient_accumulation_steps
    run.scaler.scale(means.sum()).backward()
    return means.detach()


def take_step(run: Run, learner: Any, max_grad_norm: float | None) -> None:
    """Average a learner's gradients over the processes, clip them, and step its optimizer and schedule."""
    for parameter in learner.parameters():
        parameter.grad = run.processes.average(parameter.grad)
    run.scaler.unscale_(learner.optimizer)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(learner.parameters(), max_grad_norm)
    run.scaler.step(learner.optimizer)
    learner.schedule.step()
    learner.optimizer.zero_grad()
