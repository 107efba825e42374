"""Drawings for training, drawn once and kept in shards: files of some thousands under `build/miniature/`."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from .captions import caption
from .drawing import PICTURE_SIDE, SHARP_SIDE, render
from .fit import end_with_parent
from .world import HELD_OUT_STYLE, HELD_OUT_TOYS, Drawing, labels_of, named_toys, sample_drawing

SHARD = 4_000  # pictures
CAPTIONS = 3  # sentences for each picture
NAMED_FRACTION, MORE_NAMED_FRACTION = 0.35, 0.5
_FIRST_NAMED_SHARD = 500  # the numbers below are for the other sessions
_FIRST_JUDGING_SEED = 1_000  # the seeds below are for measuring


def to_tensor(pixels: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in -1 to 1."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def pixels_of(drawings: list[Drawing], side: int = PICTURE_SIDE) -> np.ndarray:
    """The drawings as pictures, (N, side, side, 3) uint8."""
    return np.array([np.asarray(render(one, side)) for one in drawings])


def labels_for(drawings: list[Drawing]) -> np.ndarray:
    """Their attributes' numbers, (N, attributes) int8, as `world.labels_of` gives them."""
    return np.array([labels_of(one) for one in drawings], np.int8)


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
    """What text encoder and UNet are trained on; `named` is the fraction of toys with a name.

    Returns:
        `pixels` (N, 64, 64, 3) uint8, `labels` (N, attributes) int8 as `world.labels_of` gives them, and
        `ids` (N, captions, tokens) int16.
    """
    rng = np.random.default_rng([2026, number])
    toys = named_toys()
    drawings, sentences = [], []
    for _ in range(size):
        name = _some_name(rng, toys, named)
        drawings.append(sample_drawing(rng, toys.get(name)))
        sentences += [caption(drawings[-1], rng, name)[0] for _ in range(CAPTIONS)]
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    ids = np.array(tokenizer(sentences, padding="max_length", truncation=True).input_ids, np.int16)
    return {
        "pixels": pixels_of(drawings),
        "labels": labels_for(drawings),
        "ids": ids.reshape(size, CAPTIONS, -1),
    }


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


def sample_drawings(count: int, seed: int) -> list[Drawing]:
    """Drawings in training's proportions, of toys with and without a name, none of them held out."""
    rng, toys = np.random.default_rng([2027, seed]), named_toys()
    return [sample_drawing(rng, toys.get(_some_name(rng, toys))) for _ in range(count)]


def _some_name(rng: np.random.Generator, toys: dict, named: float = NAMED_FRACTION) -> str | None:
    return str(rng.choice(list(toys))) if rng.random() < named else None


def drawings_for_judging(count: int, seed: int) -> list[Drawing]:
    """Fresh drawings: a fifth are of held-out toys, a tenth in the held-out style."""
    rng = np.random.default_rng([4052, seed])
    held_out = list(HELD_OUT_TOYS.values())
    drawings = []
    for _ in range(count):
        toy = held_out[rng.integers(len(held_out))] if rng.random() < 0.2 else None
        drawing = sample_drawing(rng, toy)
        drawings.append(replace(drawing, style=HELD_OUT_STYLE) if rng.random() < 0.1 else drawing)
    return drawings


def draw_for_judging(number: int, size: int) -> dict[str, np.ndarray]:
    """What the judge alone is trained on: `pixels` and `labels` as above."""
    drawings = drawings_for_judging(size, _FIRST_JUDGING_SEED + number)
    return {"pixels": pixels_of(drawings), "labels": labels_for(drawings)}
