"""The two autoencoders: a small one, whose latents the UNet learns, and the sharp one that ships.

The small one reads pictures of 64 x 64, the sharp one of 128 x 128; the latents, 4 x 16 x 16, mean the same
to both. Small pictures make training quick, and the UNet need not know which one draws what it made.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from tqdm.auto import tqdm

from ..model.vae import decode, encode, to_image
from .drawing import PICTURE_SIDE, SHARP_SIDE
from .fit import Plan, autocast, compile_where_it_pays, fit, generator_of
from .pictures import load, save_whole, to_tensor

LATENT_CHANNELS, LATENT_SIDE = 4, 16
LATENT_DEVIATION = 0.08
PLAN = Plan("vae", pictures=20_000, batch=8, lr=6e-3)
SHARP_PLAN = Plan("sharp", pictures=172_000, batch=64, lr=6e-3)
BATCH = 16  # pictures that are encoded or decoded at once
_LEAST_NOISE, _MOST_NOISE = 0.03, 0.15  # deviation; the UNet leaves about as much in what it makes


def new_autoencoder(
    widths: tuple[int, ...] = (24, 48, 64), side: int = PICTURE_SIDE, scaling_factor: float = 1.0
) -> AutoencoderKL:
    """An untrained AutoencoderKL whose posterior has a fixed, small deviation."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=side,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
    )
    return with_fixed_deviation(vae)


@torch.no_grad()
def with_fixed_deviation(vae: AutoencoderKL) -> AutoencoderKL:
    """Set the posterior's deviation: the second half of the moments is the logarithm of the variance."""
    vae.quant_conv.weight[LATENT_CHANNELS:] = 0
    vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * np.log(LATENT_DEVIATION)
    return vae


def train_autoencoder(
    pixels: np.ndarray, folder: Path, device: torch.device, plan: Plan = PLAN
) -> AutoencoderKL:
    """Train on drawings (N, 64, 64, 3) uint8; set the scaling factor so that latents have deviation 1."""
    torch.manual_seed(0)
    vae = new_autoencoder().to(device, memory_format=torch.channels_last).train()

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=draw).numpy()
        images = to_tensor(pixels[chosen], device)
        with autocast(device):
            means = vae.encode(images).latent_dist.mean
            noise = torch.randn(means.shape, generator=draw).to(device)
            rebuilt = vae.decode(means + LATENT_DEVIATION * noise).sample
        return _difference(rebuilt.float() - images) + 2e-4 * means.float().square().mean()

    vae = with_fixed_deviation(fit(plan, vae, loss_of, folder))
    means = encode(vae, to_tensor(pixels[:2000]), device, batch=BATCH).mean
    vae.register_to_config(scaling_factor=1 / means.std().item())
    return vae


def train_sharp_autoencoder(
    shards: list[Path], teacher: AutoencoderKL, folder: Path, device: torch.device, plan: Plan = SHARP_PLAN
) -> AutoencoderKL:
    """Train the autoencoder that ships on the latents of the one that the UNet was trained with.

    Its encoder learns to make of a picture at 128 pixels what `teacher` makes of the same picture at 64. Its
    decoder learns to draw the 128 pixels: for one half of the pictures from its own encoder's latents, for
    the other from the teacher's with noise on them, as the UNet leaves it.

    Args:
        shards: pictures of both sizes, as `pictures.draw_sharp` draws them.
        folder: for the checkpoint.
    """
    small = [
        encode(teacher, to_tensor(np.load(shard)["pixels"]), device, batch=BATCH).mean for shard in shards
    ]
    latents = torch.cat(small).cpu() / teacher.config.scaling_factor
    pixels = load(shards, "sharp")
    torch.manual_seed(0)
    # A fourth level halves the larger pictures once more: (N, 3, 128, 128) becomes (N, 4, 16, 16), too.
    vae = new_autoencoder((24, 48, 96, 128), SHARP_SIDE, teacher.config.scaling_factor)
    vae.to(device, memory_format=torch.channels_last).train()
    for part in (vae.encoder, vae.decoder):
        compile_where_it_pays(part, plan.steps)

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=draw)
        noise = _noise(plan.batch, draw).to(device)
        return _sharp_loss(vae, to_tensor(pixels[chosen.numpy()], device), latents[chosen].to(device), noise)

    return with_fixed_deviation(fit(plan, vae, loss_of, folder))


def _noise(count: int, draw: torch.Generator) -> torch.Tensor:
    """(N, 4, 16, 16): the least in the first half, in the second up to the most, which is seldom."""
    more = torch.rand(count, generator=draw).square() * (_MOST_NOISE - _LEAST_NOISE)
    more[: count // 2] = 0
    noise = torch.randn(count, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=draw)
    return (_LEAST_NOISE + more)[:, None, None, None] * noise


def _sharp_loss(vae, images: torch.Tensor, known: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """How far off the rebuilt images are, in values and in lines, and how far the latents from `known`."""
    half = len(images) // 2
    with autocast(images.device):
        means = vae.encode(images).latent_dist.mean.float()
        given = torch.cat([means[:half], known[half:]]) + noise
        rebuilt = vae.decode(given.contiguous(memory_format=torch.channels_last)).sample
    off = rebuilt.float() - images
    lines = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
    return _difference(off) + 0.15 * lines + (means - known).square().mean()


def _difference(difference: torch.Tensor) -> torch.Tensor:
    """Squared error, and some absolute error for crisp lines."""
    return difference.square().mean() + 0.1 * difference.abs().mean()


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights, for the names of files that were made with it."""
    weights = (value.float().cpu().contiguous().numpy().tobytes() for value in module.state_dict().values())
    return hashlib.sha256(b"".join(weights)).hexdigest()[:8]


def make_round_trips(shards: list[Path], vae: AutoencoderKL, device: torch.device) -> list[Path]:
    """Rebuild every drawing of the judge's shards once: `pixels` and `labels` in a file beside each."""
    weights = fingerprint(vae)
    paths = [shard.with_name(f"rebuilt-{weights}-{shard.name}") for shard in shards]
    for shard, path in zip(tqdm(shards, desc="round trips", unit="shard"), paths, strict=True):
        if not path.exists():
            drawn = np.load(shard)
            latents = encode(vae, to_tensor(drawn["pixels"]), device, batch=BATCH).mean
            rebuilt = [np.asarray(to_image(one)) for one in decode(vae, latents, device, batch=BATCH)]
            save_whole(path, pixels=np.array(rebuilt), labels=drawn["labels"])
    return paths
