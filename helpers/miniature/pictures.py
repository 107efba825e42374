"""Drawings for training, rendered once and kept in shards under `build/miniature/`."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from .captions import caption
from .drawing import render
from .fit import end_with_parent
from .world import HELD_OUT_STYLE, HELD_OUT_TOYS, labels_of, named_toys, sample_drawing

SHARD = 4_000  # pictures
CAPTIONS = 3  # sentences for each picture
NAMED_SHARE = 0.35
_FIRST_JUDGING_SEED = 1_000  # the seeds below are for measuring


def to_tensor(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in -1 to 1."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def make_shard(number: int, folder: Path, tokenizer_folder: Path, size: int = SHARD) -> Path:
    """Draw shard `number`, the same one each time, unless it is there already.

    The file holds `pixels` (N, 64, 64, 3) uint8, `labels` (N, attributes) int8 as `labels.labels_of`
    gives them, and `ids` (N, captions, tokens) int16.
    """
    path = folder / f"shard-{number:03d}.npz"
    if path.exists():
        return path
    rng = np.random.default_rng([2026, number])
    toys = named_toys()
    pixels, labels, sentences = [], [], []
    for _ in range(size):
        name = str(rng.choice(list(toys))) if rng.random() < NAMED_SHARE else None
        drawing = sample_drawing(rng, toys.get(name))
        pixels.append(np.asarray(render(drawing)))
        labels.append(labels_of(drawing))
        sentences += [caption(drawing, rng, name)[0] for _ in range(CAPTIONS)]
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    ids = np.array(tokenizer(sentences, padding="max_length", truncation=True).input_ids, np.int16)
    return save_whole(
        path,
        pixels=np.array(pixels),
        labels=np.array(labels, np.int8),
        ids=ids.reshape(size, CAPTIONS, -1),
    )


def make_judging_shard(number: int, folder: Path, size: int = SHARD) -> Path:
    """Draw a shard that only the judge is trained on, with held-out toys and the held-out style."""
    path = folder / f"judging-{number:03d}.npz"
    if path.exists():
        return path
    pixels, labels = draw_for_judging(size, seed=_FIRST_JUDGING_SEED + number)
    return save_whole(path, pixels=pixels, labels=labels)


def make_shards(
    count: int, folder: Path, tokenizer_folder: Path, size: int = SHARD, workers: int = 2
) -> list[Path]:
    """Draw shards 0 to `count` - 1 side by side; those that are there already are kept."""
    make = partial(make_shard, folder=folder, tokenizer_folder=tokenizer_folder, size=size)
    return _side_by_side(make, count, "drawings", workers)


def make_judging_shards(count: int, folder: Path, size: int = SHARD, workers: int = 2) -> list[Path]:
    """The same for the judge's own shards."""
    make = partial(make_judging_shard, folder=folder, size=size)
    return _side_by_side(make, count, "judge's drawings", workers)


def _side_by_side(make: Callable[[int], Path], count: int, what: str, workers: int) -> list[Path]:
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
        jobs = [pool.submit(make, number) for number in range(count)]
        return [job.result() for job in tqdm(jobs, desc=what, unit="shard")]


def save_whole(path: Path, **arrays: np.ndarray) -> Path:
    """Save arrays in one go: a file that is there is whole, though the process was killed or runs twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"partial-{os.getpid()}-{path.name}")
    np.savez(unfinished, **arrays)
    return unfinished.replace(path)


def draw_for_judging(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fresh drawings and their labels; a fifth are of held-out toys, a tenth in the held-out style."""
    rng = np.random.default_rng([4052, seed])
    held_out = list(HELD_OUT_TOYS.values())
    pixels, labels = [], []
    for _ in range(count):
        toy = held_out[rng.integers(len(held_out))] if rng.random() < 0.2 else None
        drawing = sample_drawing(rng, toy)
        if rng.random() < 0.1:
            drawing = replace(drawing, style=HELD_OUT_STYLE)
        pixels.append(np.asarray(render(drawing)))
        labels.append(labels_of(drawing))
    return np.array(pixels), np.array(labels, np.int8)


def load_labels(paths: list[Path]) -> np.ndarray:
    """The labels of several shards, (N, attributes) int8."""
    return np.concatenate([np.load(path)["labels"] for path in paths])


def load_pixels(paths: list[Path]) -> np.ndarray:
    """The pixels of several shards, (N, 64, 64, 3) uint8."""
    return np.concatenate([np.load(path)["pixels"] for path in paths])
