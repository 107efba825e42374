"""A few pictures drawn while training goes on: always the same prompts, seeds and noise."""

from pathlib import Path

import torch
from PIL import Image

from ..concept import Concept
from ..grid import image_grid
from ..progress import progress
from .latents import decode
from .model import Model
from .sentences import token_ids, with_word

STEPS = 20
GUIDANCE = 5.0
_TEMPLATES = {
    "object": ("a photo of a {}", "a photo of a {} on a beach"),
    "style": ("a painting in the style of {}", "a painting of a beach in the style of {}"),
}


def sample_prompts(concept: Concept) -> list[str]:
    """Two prompts, twice each: one as in training, one with a scene."""
    return [prompt for prompt in with_word(concept, _TEMPLATES[concept.what_to_teach]) for _ in range(2)]


def save_sample(concept: Concept, model: Model, noise: torch.Tensor, step: int) -> Path:
    """Draw the strip of a step into `training/samples/`, whole or not at all."""
    path = concept.training_folder / "samples" / f"{step:05d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    images = draw_pictures(model, sample_prompts(concept), noise)
    image_grid(images, columns=len(images)).save(partial, format="png")
    return partial.replace(path)


def saved_samples(concept: Concept) -> dict[int, Path]:
    """The strips by step, in order."""
    paths = sorted((concept.training_folder / "samples").glob("*.png"))
    return {int(path.stem): path for path in paths}


def sample_noise(concept: Concept, shape: tuple[int, ...]) -> torch.Tensor:
    """What the strips start from: (4, channels, height, width), by the concept's seed."""
    generator = torch.Generator().manual_seed(concept.training.seed)
    return torch.randn(4, *shape, generator=generator)


@torch.no_grad()
def draw_pictures(
    model: Model, prompts: list[str], noise: torch.Tensor, steps: int = STEPS, guidance: float = GUIDANCE
) -> list[Image.Image]:
    """Text to pictures without a pipeline: DPM-Solver++ and classifier-free guidance.

    Args:
        noise: (prompts, channels, height, width), standard normal.
    """
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(steps, device=model.device)
    ids = token_ids(model.components.tokenizers, [""] * len(prompts) + prompts, model.device)
    conditioning = model.embed(ids)
    latents = noise.to(model.device) * scheduler.init_noise_sigma
    for timestep in progress(scheduler.timesteps, "drawing samples"):
        both = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        without, with_prompt = model.predict(both, timestep, conditioning).chunk(2)
        guided = without + guidance * (with_prompt - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    return decode(model, latents)
