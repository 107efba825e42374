"""Drawings for training, rendered once and kept in shards under `build/miniature/`."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from .captions import caption
from .drawing import render
from .labels import labels_of
from .world import HELD_OUT_STYLE, HELD_OUT_TOYS, named_toys, sample_drawing

SHARD = 4_000  # pictures
CAPTIONS = 3  # sentences for each picture
NAMED_SHARE = 0.35


def make_shard(number: int, folder: Path, tokenizer_folder: Path) -> Path:
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
    for _ in range(SHARD):
        name = str(rng.choice(list(toys))) if rng.random() < NAMED_SHARE else None
        drawing = sample_drawing(rng, toys.get(name))
        pixels.append(np.asarray(render(drawing)))
        labels.append(labels_of(drawing))
        sentences += [caption(drawing, rng, name)[0] for _ in range(CAPTIONS)]
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    ids = np.array(tokenizer(sentences, padding="max_length", truncation=True).input_ids, np.int16)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{number:03d}.npz"
    np.savez(
        partial,
        pixels=np.array(pixels),
        labels=np.array(labels, np.int8),
        ids=ids.reshape(SHARD, CAPTIONS, -1),
    )
    return partial.replace(path)


def make_shards(count: int, folder: Path, tokenizer_folder: Path, workers: int = 2) -> list[Path]:
    """Draw shards 0 to `count` - 1 side by side; those that are there already are kept."""
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(make_shard, number, folder, tokenizer_folder) for number in range(count)]
        return [job.result() for job in tqdm(jobs, desc="drawings", unit="shard")]


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
