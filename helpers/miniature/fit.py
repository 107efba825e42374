"""The training loop of all parts, which can be killed at any time, and its optimizers."""

import functools
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ..common.files import atomic_file
from ..model.machine import pick_dtype

_CHECKPOINT_SECONDS = 120
_CHECKPOINTS = 10  # at least, in a run
_LOG_EVERY = 25  # steps
_FEWEST_STEPS, _SMALLEST_BATCH = 3, 4  # in a small build
_AVERAGE_DECAY = 0.998
_WARMUP = 0.02  # of the steps
_WORTH_COMPILING = 500  # steps; compiling takes a minute or two


@dataclass(frozen=True)
class Plan:
    """How a part is trained; `cooldown` is the fraction of steps in which the learning rate falls."""

    name: str
    pictures: int
    batch: int
    lr: float
    cooldown: float = 0.6

    @property
    def steps(self) -> int:
        return self.pictures // self.batch

    def at(self, fraction: float) -> "Plan":
        """The plan with a fraction of the pictures, in smaller batches where there are too few."""
        pictures = max(_FEWEST_STEPS * _SMALLEST_BATCH, round(self.pictures * fraction))
        return replace(self, pictures=pictures, batch=min(self.batch, pictures // _FEWEST_STEPS))

    def ends_tenth(self, step: int) -> bool:
        """Whether a tenth of the steps, or the last one, is done with this step."""
        return (step + 1) % max(1, self.steps // _CHECKPOINTS) == 0 or step + 1 == self.steps

    def lr_factor(self, step: int) -> float:
        """The factor on `lr` at a step: a trapezoid schedule."""
        done = (step + 1) / self.steps
        return max(0.01, min(1.0, done / _WARMUP, (1 - done) / self.cooldown))


def fit(
    plan: Plan,
    make_model: Callable[[], nn.Module],
    loss_of: Callable[[nn.Module, torch.Generator], torch.Tensor],
    folder: Path,
) -> nn.Module:
    """Train a model by `plan`, or resume from the checkpoint in `folder`.

    Args:
        loss_of: the loss of a step. All its random numbers must come from the generator, which depends on
            the step alone, so that a resumed run has the same result.
        folder: for the checkpoint, which also holds the log (`read_log`).

    Returns:
        The averaged model, on the CPU.
    """
    torch.manual_seed(0)
    model = make_model().to(device(), memory_format=torch.channels_last).train()
    if plan.steps >= _WORTH_COMPILING and (shutil.which("g++") or shutil.which("clang++")):
        for part in model.children():
            part.compile()
    optimizers = make_optimizers(model, plan.lr)
    average = AveragedModel(model, multi_avg_fn=_average)
    checkpoint = folder / f"{plan.name}.pt"
    first, log = _restore(checkpoint, model, average, optimizers)
    started = time.monotonic() - (log[-1]["seconds"] if log else 0)
    saved, losses = time.monotonic(), []
    for step in tqdm(range(first, plan.steps), desc=plan.name, unit="step", initial=first, total=plan.steps):
        for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
            group["lr"] = group["full_lr"] * plan.lr_factor(step)
        losses.append(_descend(model, optimizers, loss_of, step))
        average.update_parameters(model)
        if len(losses) == _LOG_EVERY or step + 1 == plan.steps:
            loss, seconds = sum(losses) / len(losses), time.monotonic() - started
            seen, losses = (step + 1) * plan.batch, []
            log.append({"pictures": seen, "loss": round(loss, 5), "seconds": round(seconds, 1)})
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or plan.ends_tenth(step):
            _save(checkpoint, step + 1, log, model, average, optimizers)
            saved = time.monotonic()
    return average.module.cpu().eval()


@torch.no_grad()
def _average(averages, current, count) -> None:
    """An exponential moving average; it decays faster at first, to forget the untrained weights."""
    decay = min(_AVERAGE_DECAY, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(averages, list(current), 1 - decay)


def _descend(model, optimizers, loss_of, step: int) -> float:
    """One step, in bfloat16 where the hardware is fast at it.

    On a CPU, attention is computed by plain matrix products: with the miniature's few tokens, the backward
    pass of torch's flash attention took a third of a step.
    """
    draw = torch.Generator().manual_seed(1_000_003 + step)
    attention = sdpa_kernel(SDPBackend.MATH) if device().type == "cpu" else nullcontext()
    with attention, torch.autocast(device().type, torch.bfloat16, enabled=_has_quick_bf16()):
        loss = loss_of(model, draw)
    model.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def _save(checkpoint: Path, step: int, log: list[dict], model, average, optimizers) -> None:
    states = {"model": model.state_dict(), "average": average.state_dict(), "step": step, "log": log}
    states["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
    with atomic_file(checkpoint) as partial:
        torch.save(states, partial)


def _restore(checkpoint: Path, model, average, optimizers) -> tuple[int, list[dict]]:
    """The next step, and the log so far."""
    if not checkpoint.exists():
        return 0, []
    states = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(states["model"])
    average.load_state_dict(states["average"])
    for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return states["step"], states["log"]


def read_log(folder: Path, name: str) -> list[dict]:
    """A line for every few steps: `pictures` so far, mean `loss` since the last line, `seconds` so far."""
    return torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True, mmap=True)["log"]


@functools.cache
def device() -> torch.device:
    """The device to train on: the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def _has_quick_bf16() -> bool:
    return pick_dtype("auto", device()) == torch.bfloat16


def make_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon at `lr` for inner matrices; AdamW at half that for embeddings, vectors, first and last layers."""
    inner, outer = [], []
    for name, p in model.named_parameters():
        edge = any(part in name for part in ("conv_in", "conv_out", "embedding", "quant_conv"))
        (outer if p.ndim < 2 or edge else inner).append(p)
    adamw = torch.optim.AdamW(outer, lr / 2, betas=(0.9, 0.98), weight_decay=0.01)
    optimizers = [Muon(inner, lr), adamw]
    for optimizer in optimizers:
        optimizer.param_groups[0]["full_lr"] = optimizer.defaults["lr"]
    return optimizers


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized by five Newton-Schulz steps.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". `torch.optim.Muon`
    takes matrices only, one by one and always in bfloat16, which is slow on most CPUs; here a convolution
    (out, in, h, w) counts as the matrix (out, in * h * w).

    Args:
        params: parameters of two dimensions or more.
        lr: an update has a root mean square of about 0.2 * lr, as AdamW's has.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            of_one_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    of_one_shape[p.shape].append(p)
            for same in of_one_shape.values():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in same])
                scale = 0.2 * max(updates.shape[1:]) ** 0.5
                for p, update in zip(same, orthogonalized(updates), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * scale)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        past = self.state[p].setdefault("momentum", torch.zeros_like(p))
        past.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(past, momentum).flatten(1)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices, (N, rows, columns), whose singular values are all about 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16 if _has_quick_bf16() else torch.float32)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x
