"""Pictures as latents: encoded once and kept, or, where each step crops anew, as they come."""

import random
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from ..concept import Concept
from ..dataset import preprocess, to_image
from ..images import load_images
from ..progress import progress
from .model import Model


@dataclass
class Posterior:
    """The Gaussian that the VAE sees in a picture: mean and deviation, (batch, channels, height, width)."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def draw(self, noise: torch.Tensor) -> torch.Tensor:
        return self.mean + self.deviation * noise


class LatentSource(Protocol):
    """Where a step's latents come from."""

    pictures: int
    shape: tuple[int, ...]  # of one latent: (channels, height, width)
    note: str  # what a person should know about it

    def posterior(
        self, indices: list[int], flipped: list[bool], share: slice, generator: torch.Generator
    ) -> Posterior:
        """The posteriors of this process' share of the pictures drawn."""

    def means(self) -> torch.Tensor:
        """A latent for each picture, without chance: (pictures or more, channels, height, width)."""


def latent_source(concept: Concept, model: Model) -> LatentSource:
    """The cache, or with `random_crop`, which a cache can't hold, an encoder for each step.

    Raises:
        UserError: the concept has no pictures.
    """
    return FreshCrops(concept, model) if concept.training.random_crop else LatentCache(concept, model)


class LatentCache:
    """Posterior mean and deviation of each picture, and of its mirror image where it is drawn, encoded once.

    Drawing from them at each step gives the same distribution as encoding at each step.
    """

    def __init__(self, concept: Concept, model: Model):
        images, settings = load_images(concept), concept.training
        chances = {False: 1 - settings.flip_probability, True: settings.flip_probability}
        self.flips = [flip for flip, chance in chances.items() if chance]
        pixels = [
            preprocess(image, settings, model.resolution, flip) for flip in self.flips for image in images
        ]
        self.pictures = len(images)
        self.all = encode(model, torch.stack(pixels))
        self.shape = tuple(self.all.mean.shape[1:])
        mirrored = " and their mirror images" if len(self.flips) > 1 else ""
        self.note = f"{self.pictures} pictures{mirrored} were encoded once, for all steps."

    def posterior(
        self, indices: list[int], flipped: list[bool], share: slice, generator: torch.Generator
    ) -> Posterior:
        drawn = zip(indices, flipped, strict=True)
        picked = [index + self.pictures * self.flips.index(flip) for index, flip in drawn][share]
        return Posterior(self.all.mean[picked], self.all.deviation[picked])

    def means(self) -> torch.Tensor:
        return self.all.mean


class FreshCrops:
    """Another crop of the picture at each step: the VAE stays on the device and is asked each time."""

    def __init__(self, concept: Concept, model: Model):
        self.images, self.settings, self.model = load_images(concept), concept.training, model
        self.pictures = len(self.images)
        middle = self.settings.model_copy(update={"random_crop": False})
        pixels = [preprocess(image, middle, model.resolution) for image in self.images]
        self._means = encode(model, torch.stack(pixels)).mean
        self.shape = tuple(self._means.shape[1:])
        self.note = "Random crops are encoded at each step, since no cache can hold them: this is slower."

    def posterior(
        self, indices: list[int], flipped: list[bool], share: slice, generator: torch.Generator
    ) -> Posterior:
        seeds = torch.randint(2**31, (len(indices),), generator=generator).tolist()
        drawn = list(zip(indices, flipped, seeds, strict=True))[share]
        pixels = torch.stack([self._crop(*one) for one in drawn])
        return encode(self.model, pixels, keep_vae=True)

    def means(self) -> torch.Tensor:
        return self._means

    def _crop(self, index: int, flip: bool, seed: int) -> torch.Tensor:
        return preprocess(self.images[index], self.settings, self.model.resolution, flip, random.Random(seed))


@torch.no_grad()
def encode(model: Model, pixel_values: torch.Tensor, keep_vae: bool = False) -> Posterior:
    """Pictures (batch, 3, height, width) in -1..1 to posteriors in the UNet's scale, on the device.

    One at a time, so that many take no more memory. The VAE leaves the device unless `keep_vae`.
    """
    vae = model.vae.to(model.device)
    seen = progress(pixel_values, "encoding pictures")
    posteriors = [vae.encode(one.unsqueeze(0).to(model.device)).latent_dist for one in seen]
    if not keep_vae:
        vae.to("cpu")
    scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0
    mean = torch.cat([posterior.mean for posterior in posteriors])
    deviation = torch.cat([posterior.std for posterior in posteriors])
    return Posterior((mean - shift) * scale, deviation * scale)


@torch.no_grad()
def decode(model: Model, latents: torch.Tensor) -> list[Image.Image]:
    """Latents in the UNet's scale to pictures; the VAE leaves the device afterwards."""
    vae = model.vae.to(model.device)
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents = latents.float().to(model.device) / vae.config.scaling_factor + shift
    latents = progress(latents, "decoding pictures")
    pictures = [to_image(vae.decode(one.unsqueeze(0)).sample[0]) for one in latents]
    vae.to("cpu")
    return pictures
