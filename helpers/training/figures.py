"""Pictures of a run: the curves of its log, and the samples that are drawn while it goes on."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ..common.files import write_whole
from ..common.progress import progress
from ..common.sheets import GAP, Described, described, finish, image_grid, new_figure, packed
from ..concept.concept import Concept
from ..dataset.dataset import token_ids, with_word
from ..model.vae import decode, to_image
from .model import Model
from .records import RunSummary, logged, read_log, row_norms


def plot_run(concept: Concept) -> Described:
    """The fixed loss, the score and each row's norm over the steps; a line marks the step that was kept.

    Raises:
        UserError: the concept was never trained to an end.
    """
    best, lines = RunSummary.load(concept).best_step, read_log(concept.training_folder)
    panels = {
        "fixed loss": {"": logged(lines, "fixed_loss")},
        "score on what was kept back": {"": logged(lines, "score")},
        "length of each row": row_norms(concept, lines) or {"": logged(lines, "norm")},
    }
    axes = new_figure(columns=3, size=(11, 3))
    for one, (title, drawn) in zip(axes, panels.items(), strict=True):
        for name, (steps, values) in drawn.items():
            one.plot(steps, values, label=name, marker="." if len(steps) < 60 else "")
        one.axvline(best, color="0.4", linestyle=":")
        one.set(title=title, xlabel="step")
    if 1 < len(panels["length of each row"]) <= 6:
        axes[-1].legend()
    return finish(axes[0], _in_words(panels, best))


def sample_sheet(concept: Concept, cell: int = 96) -> Described:
    """The strips drawn during training, one below the other, oldest first; a note where none was drawn."""
    samples = saved_samples(concept)
    if not samples:
        return _note("No samples were drawn: set sample_every to 100 or so, and train again.")
    pictures, captions = [], []
    for step, path in samples.items():
        strip = read_strip(path)
        pictures += strip
        captions += [f"step {step}"] * len(strip)
    alt = f"{len(strip)} samples at each of these steps: {', '.join(map(str, samples))}."
    return image_grid(pictures, columns=len(strip), captions=captions, cell=cell, alt=alt)


def _in_words(panels: dict[str, dict[str, tuple]], best: int) -> str:
    ends = [
        f"{title} {name}".strip() + f" from {values[0]:.4f} at step {steps[0]} to {values[-1]:.4f}"
        for title, drawn in panels.items()
        for name, (steps, values) in drawn.items()
        if steps
    ]
    return f"Curves over the steps: {'; '.join(ends)}. The step that was kept: {best}."


def _note(text: str) -> Described:
    note = Image.new("RGB", (560, 40), "white")
    ImageDraw.Draw(note).text((8, 10), text, fill="#333333", font=ImageFont.load_default(size=14))
    return described(note, text)


# Samples: always the same prompts, seeds and noise, so that only the word changes.
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
    images = draw_pictures(model, sample_prompts(concept), noise)
    return write_whole(path, packed(image_grid(images, columns=len(images))))


def saved_samples(concept: Concept) -> dict[int, Path]:
    """The strips by step, in order."""
    paths = sorted((concept.training_folder / "samples").glob("*.png"))
    return {int(path.stem): path for path in paths}


def read_strip(path: Path) -> list[Image.Image]:
    """The square pictures of a strip, from left to right."""
    with Image.open(path) as strip:
        side = strip.height
        return [strip.crop((left, 0, left + side, side)) for left in range(0, strip.width, side + GAP)]


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
    return [to_image(one) for one in decode(model.vae, latents, model.device)]
