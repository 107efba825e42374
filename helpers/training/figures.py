"""Pictures of a run: the curves of its log, its samples, and a training step taken by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from IPython.display import Markdown
from PIL import Image, ImageDraw
from torch import nn

from ..common.files import write_whole
from ..common.progress import progress
from ..common.sheets import GAP, INK, Animation, Described, finish, image_grid, new_figure, packed
from ..concept.concept import Concept
from ..concept.embedding import read_rows
from ..dataset.dataset import token_ids, with_word
from ..model.tokens import expand_prompt
from ..model.vae import decode, to_image
from .learner import Learner, open_learner
from .model import Model
from .records import RunSummary, logged, read_log, row_norms
from .step import squared_errors, target_of

Curves = dict[str, tuple[list[int], list[float]]]  # steps and values, by the name of the line
SCORE = "score on what was kept back"
_NAMED_LINES = 6  # at most, in a panel that has a legend
_KEPT = "#d9730d"  # the frame of the step that was kept
_NO_SAMPLES = "No samples were drawn: set `sample_every` to 100 or so, and train again."


def plot_run(concept: Concept) -> Described:
    """The fixed loss, the score and each row's norm over the steps; a line marks the step of the result."""
    kept, lines = RunSummary.load(concept).best_step, read_log(concept.training_folder)
    return plot_curves(curves_of(concept, lines), kept)


def curves_of(concept: Concept, lines: list[dict[str, Any]]) -> dict[str, Curves]:
    """A run's fixed loss, score and norms from the lines of its log, by the title of their panel."""
    return {
        "fixed loss": {"": logged(lines, "fixed_loss")},
        SCORE: {"": logged(lines, "score")},
        "length of each row": row_norms(concept, lines) or {"": logged(lines, "norm")},
    }


def plot_curves(panels: dict[str, Curves], kept: int | None = None) -> Described:
    """Curves over the steps, one panel per quantity; a dotted line marks the step `kept`."""
    axes = new_figure(columns=len(panels), size=(11 / 3 * len(panels), 3))
    for one, (title, lines) in zip(axes, panels.items(), strict=True):
        named = len(lines) if len(lines) <= _NAMED_LINES else 1
        for place, (name, (steps, values)) in enumerate(lines.items()):
            width = 1.8 + 1.5 * max(0, named - 1 - place)  # the rim of a covered line stays visible
            one.plot(steps, values, label=name, marker="." if len(steps) < 60 else "", linewidth=width)
        if kept is not None:
            one.axvline(kept, color=INK, linestyle=":")
        one.set(title=title, xlabel="step")
        if named > 1:
            columns = 3 if max(map(len, lines)) < 30 else 1  # letters
            one.figure.legend(loc="outside lower right", ncols=columns, frameon=False, labelcolor=INK)
    return finish(axes[0], _in_words(panels, kept))


def sample_sheet(concept: Concept) -> Described | Markdown:
    """The samples drawn during training, step by step, the kept ones framed; a sentence if there are none."""
    samples, kept = _strips(concept), RunSummary.load(concept).best_step
    if not samples:
        return Markdown(_NO_SAMPLES)
    pictures, captions = [], []
    for step, strip in samples.items():
        pictures += [_framed(one) for one in strip] if step == kept else strip
        captions += _named(step, kept, strip)
    steps = ", ".join(map(str, samples))
    alt = f"{len(strip)} samples at each of these steps: {steps}. The step that was kept: {kept}."
    return image_grid(pictures, columns=len(strip), captions=captions, alt=alt)


def sample_animation(concept: Concept) -> Animation | Markdown:
    """The samples up to the kept step, one step after the other; a sentence if there are none."""
    kept = RunSummary.load(concept).best_step
    shown = {step: strip for step, strip in _strips(concept).items() if step <= kept}
    if not shown:
        return Markdown(_NO_SAMPLES)
    frames = [image_grid(strip, len(strip), _named(step, kept, strip)) for step, strip in shown.items()]
    alt = f"The word comes: samples at the steps {', '.join(map(str, shown))}, one after the other."
    return Animation.of(frames, [*([1] * (len(frames) - 1)), 3], alt)


def _strips(concept: Concept) -> dict[int, list[Image.Image]]:
    return {step: read_strip(path) for step, path in saved_samples(concept).items()}


def _named(step: int, kept: int, strip: list[Image.Image]) -> list[str]:
    return [f"step {step}, kept" if step == kept else f"step {step}"] * len(strip)


def _framed(image: Image.Image) -> Image.Image:
    framed = image.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, *framed.size), outline=_KEPT, width=framed.width // 32)
    return framed


def _in_words(panels: dict[str, Curves], kept: int | None) -> str:
    ends = [
        f"{title} {name}".strip()
        + f" from {values[0]:.4f} at step {steps[0]} to {values[-1]:.4f} at step {steps[-1]}"
        for title, drawn in panels.items()
        for name, (steps, values) in drawn.items()
        if steps
    ]
    of_kept = "" if kept is None else f" The step that was kept: {kept}."
    return f"Curves over the steps: {'; '.join(ends)}.{of_kept}"


# Samples, always of the same prompts and noise, so that only the word changes; four in a strip per step.
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
    """Draw the strip of a step and save it in `training/samples/`."""
    path = concept.training_folder / "samples" / f"{step:05d}.png"
    images = draw_pictures(model, sample_prompts(concept), noise)
    return write_whole(path, packed(image_grid(images, columns=len(images), cell=images[0].width)))


def saved_samples(concept: Concept) -> dict[int, Path]:
    """The strips by step, in order."""
    paths = sorted((concept.training_folder / "samples").glob("*.png"))
    return {int(path.stem): path for path in paths}


def read_strip(path: Path) -> list[Image.Image]:
    """The square pictures of a strip, from left to right."""
    with Image.open(path) as strip:
        side = strip.height
        boxes = [(left, 0, left + side, side) for left in range(0, strip.width, side + GAP)]
        return [strip.crop(box).convert("RGB") for box in boxes]


def sample_noise(concept: Concept, shape: tuple[int, ...]) -> torch.Tensor:
    """The initial noise of a strip, (4, channels, height, width), by the concept's seed."""
    generator = torch.Generator().manual_seed(concept.training.seed)
    return torch.randn(4, *shape, generator=generator)


@torch.no_grad()
def draw_pictures(model: Model, prompts: list[str], noise: torch.Tensor) -> list[Image.Image]:
    """Draw each prompt from its noise, by DPM-Solver++ with classifier-free guidance."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler.from_config(model.scheduler.config)
    scheduler.set_timesteps(STEPS, device=model.device)
    ids = token_ids(model.components.tokenizers, [""] * len(prompts) + prompts, model.device)
    conditioning = model.embed(ids)
    latents = noise.to(model.device) * scheduler.init_noise_sigma
    for timestep in progress(scheduler.timesteps, "drawing samples"):
        both = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
        without, with_prompt = model.predict(both, timestep, conditioning).chunk(2)
        guided = without + GUIDANCE * (with_prompt - without)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    return [to_image(one) for one in decode(model.vae, latents, model.device)]


# One training step taken by hand: what goes into it, and what comes out.


@dataclass
class ByHand:
    """A model with the word in it, as in training, and one picture with noise for it."""

    concept: Concept
    model: Model
    learner: Learner
    latents: torch.Tensor  # of the first picture, (1, channels, height, width)
    noise: torch.Tensor

    def noisy(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The first picture's latents with the noise of each timestep, (timesteps, ...)."""
        return self.model.scheduler.add_noise(self.latents, self.noise, timesteps)

    def decoded(self, latents: torch.Tensor) -> list[Image.Image]:
        return [to_image(one) for one in decode(self.model.vae, latents, self.model.device)]

    def parts(self) -> list[nn.Module]:
        return [*self.model.components.text_encoders, self.model.unet, self.model.vae]


def by_hand(concept: Concept) -> ByHand:
    """Load the base model with the learned rows into this process, on the GPU if there is one.

    Raises:
        UserError: the concept was not trained yet, or its model can't be loaded.
    """
    rows = read_rows(concept)
    model, learner = open_learner(concept)
    learner.set_rows(rows)
    for group, rate in zip(learner.optimizer.param_groups, learner.schedule.base_lrs, strict=True):
        group["lr"] = rate  # skips the warm-up, which begins at 0
    latents = learner.latents.posterior.mean[:1]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(concept.training.seed))
    return ByHand(concept, model, learner, latents, noise.to(model.device))


def show_latents(hand: ByHand) -> Image.Image:
    """The first picture, encoded and decoded, then each channel of its latents in grey."""
    channels = [_grey(channel) for channel in hand.latents[0]]
    captions = ["decoded", *(f"channel {number}" for number in range(1, len(channels) + 1))]
    return image_grid([*hand.decoded(hand.latents), *channels], len(captions), captions)


def show_noisy(hand: ByHand, timesteps: list[int]) -> Image.Image:
    """The first picture with the noise of each timestep, decoded."""
    pictures = hand.decoded(hand.noisy(torch.tensor(timesteps, device=hand.latents.device)))
    return image_grid(pictures, len(timesteps), [f"t = {timestep}" for timestep in timesteps])


@torch.no_grad()
def show_predictions(hand: ByHand, words: list[str], timesteps: list[int]) -> Image.Image:
    """The picture that the model predicts: a row per word, a column per timestep, each with its error."""
    model, times = hand.model, torch.tensor(timesteps, device=hand.latents.device)
    noisy = hand.noisy(times)
    target = target_of(model.scheduler, hand.latents, hand.noise, times).expand_as(noisy)
    pictures, captions = [], []
    for word in words:
        prompt = expand_prompt(f"a photo of a {word}", hand.concept.placeholder_tokens)
        ids = token_ids(model.components.tokenizers, [prompt] * len(times), model.device)
        prediction = model.predict(noisy, times, model.embed(ids))
        pictures += hand.decoded(_without_noise(model.scheduler, noisy, prediction, times))
        errors = zip(timesteps, squared_errors(prediction, target).tolist(), strict=True)
        captions += [f"{word}, t = {timestep}: {error:.3f}" for timestep, error in errors]
    return image_grid(pictures, len(timesteps), captions)


def _without_noise(
    scheduler, noisy: torch.Tensor, prediction: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """The clean latents that follow from a prediction (DDIM, Song et al. 2021, equation 12)."""
    kept = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
    return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()


def frozen_weights(hand: ByHand) -> dict[str, torch.Tensor]:
    """A copy of every weight and buffer of the model except the new rows, by name."""
    return {
        f"{number}.{name}": value.detach().clone()
        for number, part in enumerate(hand.parts())
        for name, value in part.state_dict().items()
        if not name.endswith(".rows")
    }


def gradients(hand: ByHand) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all parameters that have a gradient."""
    return {
        name: tuple(parameter.shape)
        for part in hand.parts()
        for name, parameter in part.named_parameters()
        if parameter.grad is not None
    }


def _grey(channel: torch.Tensor) -> Image.Image:
    low, high = channel.min(), channel.max()
    values = ((channel - low) / (high - low) * 255).to(torch.uint8).cpu()
    return Image.fromarray(values.numpy())
