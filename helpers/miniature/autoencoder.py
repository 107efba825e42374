"""The autoencoder: a picture of 64 x 64 becomes 4 x 16 x 16 latents, and back."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from tqdm.auto import tqdm

from .drawing import PICTURE_SIDE
from .fit import Plan, autocast, generator_of, sit
from .pictures import save_whole, to_tensor

LATENT_CHANNELS = 4
LATENT_DEVIATION = 0.08
PLAN = Plan("vae", pictures=20_000, batch=8, lr=6e-3)
POLISH_DEVIATION = 0.03
POLISH_PLAN = Plan("polish", pictures=20_000, batch=8, lr=4e-3, cooldown=0.8)


def new_autoencoder() -> AutoencoderKL:
    """An untrained AutoencoderKL whose posterior has a fixed, small deviation."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_SIDE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    with torch.no_grad():  # the second half of the moments is the logarithm of the variance
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * np.log(LATENT_DEVIATION)
    return vae


def train_autoencoder(pixels: np.ndarray, folder, device: torch.device, plan: Plan = PLAN) -> AutoencoderKL:
    """Train on drawings (N, 64, 64, 3) uint8; set the scaling factor so that latents have deviation 1."""
    torch.manual_seed(0)
    vae = new_autoencoder()
    vae = _train(vae, pixels, folder, device, plan, LATENT_DEVIATION, lambda _, means: 2e-4 * means.square())
    vae.register_to_config(scaling_factor=1 / _deviation(vae, pixels[:2000], device))
    return vae


def polish_autoencoder(
    vae: AutoencoderKL, pixels: np.ndarray, folder, device: torch.device, plan: Plan = POLISH_PLAN
) -> AutoencoderKL:
    """Train on with less noise, the latents held near to what they were: the UNet knows those."""
    before = copy.deepcopy(vae).to(device, memory_format=torch.channels_last).eval().requires_grad_(False)

    def pull(images: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        return 0.3 * (means - before.encode(images).latent_dist.mean.float()).square()

    return _train(vae.train(), pixels, folder, device, plan, POLISH_DEVIATION, pull)


def train_decoder_on(vae: AutoencoderKL, pixels: np.ndarray, folder, device, plan: Plan) -> AutoencoderKL:
    """Train the decoder alone: what the encoder makes of a picture stays as it is, to the bit."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    return _train(vae.train(), pixels, folder, device, plan, POLISH_DEVIATION, lambda _, means: 0 * means)


def _train(vae, pixels, folder, device, plan: Plan, deviation: float, pull) -> AutoencoderKL:
    """`deviation` is that of the noise on the latents; `pull` is a loss on images and latents, by element."""
    vae.to(device, memory_format=torch.channels_last)

    def loss_of(step: int) -> torch.Tensor:
        generator = generator_of(step)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=generator).numpy()
        images = to_tensor(pixels[chosen], device)
        with autocast(device):
            means = vae.encode(images).latent_dist.mean
            noise = torch.randn(means.shape, generator=generator).to(device)
            rebuilt = vae.decode(means + deviation * noise).sample
            held = pull(images, means.float()).mean()
        return _difference(rebuilt.float() - images) + held

    return sit(plan, vae, loss_of, folder)


def _difference(difference: torch.Tensor) -> torch.Tensor:
    """Squared error, and some absolute error for crisp lines."""
    return difference.square().mean() + 0.1 * difference.abs().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device, batch: int = 250) -> torch.Tensor:
    """The posterior's means, not scaled, (N, 4, 16, 16) float32 on the CPU."""
    parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
    return torch.cat([vae.encode(to_tensor(part, device)).latent_dist.mean.float().cpu() for part in parts])


@torch.no_grad()
def rebuild(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device, batch: int = 16) -> np.ndarray:
    """The round trip: (N, H, W, 3) uint8 to latents and back."""
    latents = encode(vae, pixels, device)
    parts = [latents[start : start + batch].to(device) for start in range(0, len(latents), batch)]
    return np.concatenate([_to_pixels(vae.decode(part).sample) for part in parts])


def psnr_db(drawn: np.ndarray, rebuilt: np.ndarray) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB of (N, H, W, 3) uint8 pictures, in two ways.

    Returns:
        The mean over the pictures, as Rombach et al. 2022 (arXiv 2112.10752, table 8) report it; and that of
        the mean squared error of all together, which is lower, since the worst pictures weigh most.
    """
    errors = np.mean((drawn.astype(np.float32) - rebuilt.astype(np.float32)) ** 2, axis=(1, 2, 3))
    each = 10 * np.log10(255**2 / errors.clip(1e-3))
    return float(each.mean()), float(10 * np.log10(255**2 / errors.mean()))


def _to_pixels(images: torch.Tensor) -> np.ndarray:
    values = (images.float().clamp(-1, 1) + 1) * 127.5
    return values.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _deviation(vae: AutoencoderKL, pixels: np.ndarray, device: torch.device) -> float:
    return encode(vae, pixels, device).std().item()


# What the autoencoder makes of drawings: a file of round trips beside each shard, for the judge.


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
