"""What the autoencoder makes of drawings: a file of round trips beside each shard, for the judge."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from tqdm.auto import tqdm

from .autoencoder import rebuild
from .machine import autocast
from .pictures import save_whole


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights, for the names of files that were made with it."""
    weights = (value.float().cpu().contiguous().numpy().tobytes() for value in module.state_dict().values())
    return hashlib.sha256(b"".join(weights)).hexdigest()[:8]


def make_round_trips(shards: list[Path], vae: AutoencoderKL, device: torch.device) -> list[Path]:
    """Rebuild every drawing of the shards once: `pixels` and `labels`, as the shards hold them."""
    mark = fingerprint(vae)
    vae.to(device, memory_format=torch.channels_last)
    return [_rebuilt(shard, mark, vae, device) for shard in tqdm(shards, desc="round trips", unit="shard")]


def _rebuilt(shard: Path, mark: str, vae: AutoencoderKL, device: torch.device) -> Path:
    path = shard.with_name(f"rebuilt-{mark}-{shard.name}")
    if path.exists():
        return path
    drawn = np.load(shard)
    with autocast(device):
        pixels = rebuild(vae, drawn["pixels"], device)
    return save_whole(path, pixels=pixels, labels=drawn["labels"])
