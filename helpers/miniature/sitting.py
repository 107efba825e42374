"""A training run that can be killed at any moment: the loop around the miniature's parts."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from .muon import make_optimizers, set_lr

_CHECKPOINT_SECONDS = 120
_CHECKPOINTS = 10  # at the least, in a run
_LOG_EVERY = 25  # steps
_FEWEST_STEPS = 3
_AVERAGE_DECAY = 0.998


@dataclass(frozen=True)
class Plan:
    """How long a part is trained, and how fast: the rate rises over `warmup`, falls over `cooldown`."""

    name: str
    pictures: int
    batch: int
    lr: float
    warmup: float = 0.02
    cooldown: float = 0.6

    @property
    def steps(self) -> int:
        return self.pictures // self.batch

    def at(self, share: float) -> "Plan":
        """The same plan with a share of the pictures."""
        return replace(self, pictures=max(_FEWEST_STEPS * self.batch, round(self.pictures * share)))

    def ends_tenth(self, step: int) -> bool:
        """Whether a tenth of the steps, or the last one, is done with this step."""
        return (step + 1) % max(1, self.steps // _CHECKPOINTS) == 0 or step + 1 == self.steps

    def lr_share(self, step: int) -> float:
        """The share of `lr` at a step, by the trapezoid schedule."""
        done = (step + 1) / self.steps
        return max(0.01, min(1.0, done / self.warmup, (1 - done) / self.cooldown))


def sit(
    plan: Plan, model: torch.nn.Module, loss_of: Callable[[int], torch.Tensor], folder: Path
) -> torch.nn.Module:
    """Train `model` by `plan`, from where the last checkpoint in `folder` left it.

    Args:
        plan: how long and how fast.
        model: the module that is trained; in training mode, on its device.
        loss_of: the loss of a step, given its number; all it draws must depend on that number alone,
            so that a run that was killed goes on as it would have.
        folder: for the checkpoint and the log, a line of JSON every few steps.

    Returns:
        The averaged model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizers = make_optimizers([model], plan.lr)
    average = AveragedModel(model, multi_avg_fn=_average)
    checkpoint, log = folder / f"{plan.name}.pt", folder / f"{plan.name}.jsonl"
    first = _restore(checkpoint, model, average, optimizers)
    _cut(log, first * plan.batch)
    saved, losses = time.monotonic(), []
    for step in tqdm(range(first, plan.steps), desc=plan.name, unit="step", initial=first, total=plan.steps):
        set_lr(optimizers, plan.lr_share(step))
        losses.append(_descend(model, optimizers, loss_of(step)))
        average.update_parameters(model)
        if len(losses) == _LOG_EVERY or step + 1 == plan.steps:
            _log(log, (step + 1) * plan.batch, sum(losses) / len(losses))
            losses.clear()
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or plan.ends_tenth(step):
            _save(checkpoint, step + 1, model, average, optimizers)
            saved = time.monotonic()
    return average.module.eval()


@torch.no_grad()
def _average(averages, current, count) -> None:
    """An exponential moving average that forgets the untrained weights soon: it decays quicker at first."""
    decay = min(_AVERAGE_DECAY, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(averages, list(current), 1 - decay)


def _descend(model, optimizers, loss: torch.Tensor) -> float:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def _save(path: Path, step: int, model, average, optimizers) -> None:
    states = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
    states["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
    partial = path.with_suffix(".pt.partial")
    torch.save(states, partial)
    partial.replace(path)


def _restore(path: Path, model, average, optimizers) -> int:
    if not path.exists():
        return 0
    states = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(states["model"])
    average.load_state_dict(states["average"])
    for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return states["step"]


def _log(path: Path, pictures: int, loss: float) -> None:
    line = {"pictures": pictures, "loss": round(loss, 5), "time": round(time.time(), 1)}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _cut(path: Path, pictures: int) -> None:
    """Drop the log's lines that come after the checkpoint: what they tell of is done again."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _pictures_of(line) <= pictures]
    if kept != lines:
        partial = path.with_suffix(".jsonl.partial")
        partial.write_text("".join(line + "\n" for line in kept))
        partial.replace(path)


def _pictures_of(line: str) -> float:
    """Infinity for a line that a kill cut short."""
    try:
        return json.loads(line)["pictures"]
    except json.JSONDecodeError:
        return float("inf")


def generator_of(step: int) -> torch.Generator:
    """The random numbers of a step: the same each time it is taken."""
    return torch.Generator().manual_seed(1_000_003 + step)
