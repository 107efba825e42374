"""Pictures to latents and back through the VAE. What is lost on the way can't be learned."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..common.progress import progress


def psnr(original: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(peak² / mean squared error), the peak of -1..1 being 2."""
    return (10 * torch.log10(4 / (original - other).square().mean())).item()


def difference(original: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Six times the absolute difference of two pictures, as a picture in -1..1: black where they agree."""
    return (6 * (original - other).abs() - 1).clamp(-1, 1)


def worst_windows(original: torch.Tensor, other: torch.Tensor) -> list[Image.Image]:
    """From two pictures, (3, height, width) in -1..1, the square in which they differ most."""
    side = max(1, round(min(original.shape[-2:]) / 4))
    error = (original - other).square().mean(0, keepdim=True)
    means = torch.nn.functional.avg_pool2d(error, side, stride=1)[0]
    top, left = divmod(int(means.argmax()), means.shape[1])
    return [to_image(one[:, top : top + side, left : left + side]) for one in (original, other)]


@dataclass
class Posterior:
    """The VAE's Gaussian over latents: mean and standard deviation, (batch, channels, height, width)."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def draw(self, noise: torch.Tensor) -> torch.Tensor:
        return self.mean + self.deviation * noise


@torch.no_grad()
def encode(
    vae: Any,
    pixel_values: torch.Tensor,
    device: torch.device | str = "cpu",
    keep: bool = False,
    batch: int = 1,
) -> Posterior:
    """Pictures to posteriors in the UNet's scale.

    Args:
        pixel_values: (pictures, 3, height, width) in -1..1.
        device: where to compute, and where the posteriors are.
        keep: leave the VAE on the device; else move it back to the CPU.
        batch: pictures at once; one by default, so that many need no more memory.
    """
    vae.to(device)
    seen = progress(pixel_values.split(batch), "encoding pictures")
    posteriors = [vae.encode(some.to(device, vae.dtype)).latent_dist for some in seen]
    if not keep:
        vae.to("cpu")
    scale, shift = _scale_and_shift(vae)
    mean = torch.cat([posterior.mean for posterior in posteriors])
    deviation = torch.cat([posterior.std for posterior in posteriors])
    return Posterior((mean - shift) * scale, deviation * scale)


@torch.no_grad()
def decode(
    vae: Any, latents: torch.Tensor, device: torch.device | str = "cpu", batch: int = 1
) -> torch.Tensor:
    """Latents in the UNet's scale to pictures (pictures, 3, height, width), float32 in -1..1, on the CPU."""
    vae.to(device)
    scale, shift = _scale_and_shift(vae)
    latents = latents.float().to(device) / scale + shift
    seen = progress(latents.split(batch), "decoding pictures")
    drawn = torch.cat([vae.decode(some.to(vae.dtype)).sample for some in seen])
    vae.to("cpu")
    return drawn.float().clamp(-1, 1).cpu()


def _scale_and_shift(vae: Any) -> tuple[float, float]:
    return vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0


def to_pixel_values(image: Image.Image) -> torch.Tensor:
    """RGB bytes 0..255 to float32 (3, height, width) in -1..1, as the VAE reads them."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return pixels.permute(2, 0, 1) / 127.5 - 1


def to_image(pixel_values: torch.Tensor) -> Image.Image:
    """The inverse of `to_pixel_values`; values outside -1..1 are clamped."""
    pixels = ((pixel_values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return Image.fromarray(pixels.permute(1, 2, 0).to(torch.uint8).numpy())
