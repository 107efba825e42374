"""Through the VAE and back: what survives can be learned, what does not can't."""

from typing import Any

import torch
from PIL import Image

from .dataset import to_image
from .progress import progress


@torch.no_grad()
def encode(vae: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """The latents of pictures: the mean of the VAE's posterior, not yet scaled for the UNet.

    Args:
        pixel_values: (pictures, 3, height, width) in -1..1.

    Returns:
        (pictures, channels, height / factor, width / factor).
    """
    seen = progress(pixel_values.to(vae.dtype).split(1), "encoding pictures")
    return torch.cat([vae.encode(one).latent_dist.mode() for one in seen])


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The way back from `encode`, float32 in -1..1."""
    drawn = [vae.decode(one).sample for one in progress(latents.split(1), "decoding pictures")]
    return torch.cat(drawn).float().clamp(-1, 1)


def psnr(original: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(peak² / mean squared error), the peak of -1..1 being 2."""
    return (10 * torch.log10(4 / (original - other).square().mean())).item()


def difference(original: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far two pictures are apart: black where they agree, the brighter the further, at most white.

    Returns:
        As the pictures, in -1..1; twice as bright as the true difference.
    """
    return (2 * (original - other).abs() - 1).clamp(-1, 1)


def worst_windows(original: torch.Tensor, other: torch.Tensor, share: float = 0.25) -> list[Image.Image]:
    """Cut the square where two pictures differ most out of both.

    Args:
        original: (3, height, width) in -1..1, as `other`.
        share: side of the square, as a share of the picture's shorter side.
    """
    side = max(1, round(min(original.shape[-2:]) * share))
    error = (original - other).square().mean(0, keepdim=True)
    means = torch.nn.functional.avg_pool2d(error, side, stride=1)[0]
    top, left = divmod(int(means.argmax()), means.shape[1])
    return [to_image(one[:, top : top + side, left : left + side]) for one in (original, other)]
