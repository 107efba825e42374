"""How every part is trained: a run that can be killed at any moment, its optimizers and its drawings."""

import functools
import io
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from ..common.files import write_whole
from ..model.machine import pick_dtype
from .drawing import PICTURE_SIDE, SHARP_SIDE, render
from .world import (
    NAMED_FRACTION,
    Drawing,
    caption,
    drawings_for_judging,
    labels_of,
    named_toys,
    sample_drawing,
    sample_drawings,
    some_name,
)

_CHECKPOINT_SECONDS = 120
_CHECKPOINTS = 10  # at the least, in a run
_LOG_EVERY = 25  # steps
_FEWEST_STEPS, _SMALLEST_BATCH = 3, 4  # of a plan made small
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

    def at(self, fraction: float) -> "Plan":
        """The same plan with a fraction of the pictures, in smaller batches where there are too few."""
        pictures = max(_FEWEST_STEPS * _SMALLEST_BATCH, round(self.pictures * fraction))
        return replace(self, pictures=pictures, batch=min(self.batch, pictures // _FEWEST_STEPS))

    def ends_tenth(self, step: int) -> bool:
        """Whether a tenth of the steps, or the last one, is done with this step."""
        return (step + 1) % max(1, self.steps // _CHECKPOINTS) == 0 or step + 1 == self.steps

    def lr_factor(self, step: int) -> float:
        """What `lr` is multiplied with at a step, by the trapezoid schedule."""
        done = (step + 1) / self.steps
        return max(0.01, min(1.0, done / self.warmup, (1 - done) / self.cooldown))


def fit(plan: Plan, model: nn.Module, loss_of: Callable[[int], torch.Tensor], folder: Path) -> nn.Module:
    """Train `model` by `plan`, from where the last checkpoint in `folder` left it.

    Args:
        model: in training mode, on its device.
        loss_of: the loss of a step, given its number; all it draws must depend on that number alone,
            so that a run that was killed goes on as it would have.
        folder: for the checkpoint, which holds the log too (`read_log`).

    Returns:
        The averaged model.
    """
    optimizers = make_optimizers(model, plan.lr)
    average = AveragedModel(model, multi_avg_fn=_average)
    checkpoint = folder / f"{plan.name}.pt"
    first, log = _restore(checkpoint, model, average, optimizers)
    saved, losses = time.monotonic(), []
    for step in tqdm(range(first, plan.steps), desc=plan.name, unit="step", initial=first, total=plan.steps):
        set_lr(optimizers, plan.lr_factor(step))
        losses.append(_descend(model, optimizers, loss_of(step)))
        average.update_parameters(model)
        if len(losses) == _LOG_EVERY or step + 1 == plan.steps:
            loss = round(sum(losses) / len(losses), 5)
            log.append({"pictures": (step + 1) * plan.batch, "loss": loss, "time": round(time.time(), 1)})
            losses.clear()
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or plan.ends_tenth(step):
            _save(checkpoint, step + 1, log, model, average, optimizers)
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


def _save(path: Path, step: int, log: list[dict], model, average, optimizers) -> None:
    states = {"model": model.state_dict(), "average": average.state_dict(), "step": step, "log": log}
    states["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
    content = io.BytesIO()
    torch.save(states, content)
    write_whole(path, content.getvalue())


def _restore(path: Path, model, average, optimizers) -> tuple[int, list[dict]]:
    """The step to go on with, and the log so far."""
    if not path.exists():
        return 0, []
    states = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(states["model"])
    average.load_state_dict(states["average"])
    for optimizer, state in zip(optimizers, states["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return states["step"], states["log"]


def read_log(folder: Path, name: str) -> list[dict]:
    """What a run noted every few steps: `pictures` so far, the mean `loss` since, and the `time`."""
    return torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True, mmap=True)["log"]


def generator_of(step: int) -> torch.Generator:
    """The random numbers of a step: the same each time it is taken."""
    return torch.Generator().manual_seed(1_000_003 + step)


# The optimizer of the recipe: Muon for matrices and convolutions, AdamW for all else.


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch's own
    `torch.optim.Muon` takes matrices only; here a convolution (out, in, h, w) counts as the matrix
    (out, in * h * w), and matrices of one shape are treated together.

    Args:
        params: parameters of two dimensions or more.
        lr: step; an update has a root mean square of about 0.2 * lr, as AdamW's has.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for same in _by_shape(group["params"]).values():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in same])
                scale = 0.2 * max(updates.shape[1:]) ** 0.5
                for p, update in zip(same, orthogonalized(updates), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * scale)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum).reshape(p.shape[0], -1)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with all singular values about 1, (N, rows, columns)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16 if has_quick_bf16(x.device) else torch.float32)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def _by_shape(params) -> dict[torch.Size, list[torch.Tensor]]:
    groups: dict[torch.Size, list[torch.Tensor]] = {}
    for p in params:
        if p.grad is not None:
            groups.setdefault(p.shape, []).append(p)
    return groups


def make_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon at `lr` for inner matrices; AdamW at half of it for embeddings, vectors, first and last layers."""
    inner, outer = [], []
    for name, p in model.named_parameters():
        edge = any(part in name for part in ("conv_in", "conv_out", "embedding", "quant_conv"))
        (outer if p.ndim < 2 or edge else inner).append(p)
    return [Muon(inner, lr), torch.optim.AdamW(outer, lr / 2, betas=(0.9, 0.98), weight_decay=0.01)]


def set_lr(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times the one it was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("full_lr", group["lr"])
            group["lr"] = group["full_lr"] * factor


# Where the miniature is trained, and in which number format: the quickest that the machine has.
_WORTH_COMPILING = 500  # steps: it takes a minute or two


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the machine multiplies it quickly, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_quick_bf16(device))


@functools.cache
def has_quick_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16."""
    return pick_dtype("auto", device) == torch.bfloat16


def attention_backends(device: torch.device) -> list[SDPBackend]:
    """What computes attention, for `torch.nn.attention.sdpa_kernel`.

    On a CPU plain matrix products: for the few tokens of the miniature, the backward pass of torch's flash
    attention took a third of a training step.
    """
    if device.type == "cpu":
        return [SDPBackend.MATH]
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def compile_where_it_pays(module: nn.Module, steps: int) -> None:
    """`torch.compile`, for a run long enough to repay it, where there is what it needs: a C++ compiler."""
    if steps >= _WORTH_COMPILING and (shutil.which("g++") or shutil.which("clang++")):
        module.compile()


def end_with_parent() -> None:
    """In a worker process: end when the process that started it is gone, be it killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# Drawings for training, drawn once and kept in shards: files of some thousands.
CAPTIONS = 3  # sentences for each picture
MORE_NAMED_FRACTION = 0.5  # of the last session's toys
_FIRST_NAMED_SHARD = 500  # the numbers below are for the other sessions
_FIRST_JUDGING_SEED = 1_000  # the seeds below are for measuring


def to_tensor(pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in -1 to 1."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def pixels_of(drawings: list[Drawing], side: int = PICTURE_SIDE) -> np.ndarray:
    """The drawings as pictures, (N, side, side, 3) uint8."""
    return np.array([np.asarray(render(one, side)) for one in drawings])


def labelled(drawings: list[Drawing]) -> dict[str, np.ndarray]:
    """`pixels` (N, 64, 64, 3) uint8, and `labels` (N, attributes) int8 as `world.labels_of` gives them."""
    labels = np.array([labels_of(one) for one in drawings], np.int8)
    return {"pixels": pixels_of(drawings), "labels": labels}


def make_shards(
    kind: str, count: int, folder: Path, draw: Callable[[int], dict[str, np.ndarray]], workers: int = 2
) -> list[Path]:
    """Draw shards 0 to `count` - 1 side by side; those that are there already are kept.

    Args:
        kind: the first part of the files' names.
        draw: what a shard holds, given its number: the same each time. A module's function, or a `partial`
            of one, so that it can go to another process.
    """
    paths = [folder / f"{kind}-{number:03d}.npz" for number in range(count)]
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        jobs = [pool.submit(_make_shard, path, draw, number) for number, path in enumerate(paths)]
        return [job.result() for job in tqdm(jobs, desc=f"{kind} drawings", unit="shard")]


def _make_shard(path: Path, draw: Callable[[int], dict[str, np.ndarray]], number: int) -> Path:
    return path if path.exists() else save_whole(path, **draw(number))


def save_whole(path: Path, **arrays: np.ndarray) -> Path:
    """Save arrays in one go: a file that is there is whole, though the process was killed or runs twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"partial-{os.getpid()}-{path.name}")
    np.savez(unfinished, **arrays)
    return unfinished.replace(path)


def load(paths: list[Path], name: str) -> np.ndarray:
    """What several shards hold by a name, as one array."""
    return np.concatenate([np.load(path)[name] for path in paths])


def draw_with_captions(
    number: int, size: int, tokenizer_folder: Path, named: float = NAMED_FRACTION
) -> dict[str, np.ndarray]:
    """What text encoder and UNet are trained on: as `labelled`, and `ids` (N, captions, tokens) int16.

    Args:
        named: the fraction of toys with a name.
    """
    rng, toys = np.random.default_rng([2026, number]), named_toys()
    drawings, sentences = [], []
    for _ in range(size):
        name = some_name(rng, toys, named)
        drawings.append(sample_drawing(rng, toys.get(name)))
        sentences += [caption(drawings[-1], rng, name)[0] for _ in range(CAPTIONS)]
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    ids = np.array(tokenizer(sentences, padding="max_length", truncation=True).input_ids, np.int16)
    return {**labelled(drawings), "ids": ids.reshape(size, CAPTIONS, -1)}


def draw_more_named(number: int, size: int, tokenizer_folder: Path) -> dict[str, np.ndarray]:
    """The same for the last session, with more of the toys that have a name."""
    return draw_with_captions(_FIRST_NAMED_SHARD + number, size, tokenizer_folder, MORE_NAMED_FRACTION)


def draw_sharp(number: int, size: int) -> dict[str, np.ndarray]:
    """What the sharp autoencoder is trained on: each picture large and small.

    Returns:
        `sharp` (N, 128, 128, 3) and `pixels` (N, 64, 64, 3), both uint8.
    """
    drawings = sample_drawings(size, number)
    return {"sharp": pixels_of(drawings, SHARP_SIDE), "pixels": pixels_of(drawings)}


def draw_for_judging(number: int, size: int) -> dict[str, np.ndarray]:
    """What the judge alone is trained on, as `labelled`."""
    return labelled(drawings_for_judging(size, _FIRST_JUDGING_SEED + number))
