"""One training step taken by hand, with pictures of what goes in and what comes out."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn

from ..common.sheets import image_grid
from ..concept.concept import Concept
from ..concept.embedding import read_rows
from ..dataset.dataset import token_ids
from ..model.tokens import expand_prompt
from ..model.vae import decode, to_image
from .learner import Learner
from .model import Model, load_model
from .processes import Processes
from .step import squared_errors, target_of

CELL = 112


@dataclass
class ByHand:
    """A model with the word in it, as training has it, and the noise that all pictures here share."""

    concept: Concept
    model: Model
    learner: Learner
    latents: torch.Tensor  # of the first picture, (1, channels, height, width)
    noise: torch.Tensor

    def noisy(self, timesteps: list[int]) -> torch.Tensor:
        """The first picture's latents with the noise of each timestep, (timesteps, ...)."""
        times = torch.tensor(timesteps, device=self.latents.device)
        return self.model.scheduler.add_noise(
            self._many(self.latents, times), self._many(self.noise, times), times
        )

    @torch.no_grad()
    def predict(self, prompt: str, timesteps: list[int]) -> torch.Tensor:
        """What the model predicts for `noisy(timesteps)` when it is told `prompt`."""
        times = torch.tensor(timesteps, device=self.latents.device)
        ids = token_ids(self.model.components.tokenizers, [prompt] * len(times), times.device)
        return self.model.predict(self.noisy(timesteps), times, self.model.embed(ids))

    def errors(self, prediction: torch.Tensor, timesteps: list[int]) -> list[float]:
        """The squared error of `predict`'s answer at each timestep."""
        times = torch.tensor(timesteps, device=self.latents.device)
        latents, noise = self._many(self.latents, times), self._many(self.noise, times)
        return squared_errors(prediction, target_of(self.model.scheduler, latents, noise, times)).tolist()

    def _many(self, one: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return one.expand(len(timesteps), *one.shape[1:])


def by_hand(concept: Concept) -> ByHand:
    """Load the base model into this process, with the rows that training kept.

    Call it after the launch: it uses the GPU where there is one.

    Raises:
        UserError: the concept was not trained yet, or its model can't be loaded.
    """
    rows = read_rows(concept)
    processes = Processes()
    model = load_model(concept, processes.device)
    learner = Learner(concept, model, processes)
    processes.close()
    learner.set_rows(rows)
    for group, rate in zip(learner.optimizer.param_groups, learner.schedule.base_lrs, strict=True):
        group["lr"] = rate  # past the warm-up, which begins at 0
    latents = learner.latents.means()[:1]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(concept.training.seed))
    return ByHand(concept, model, learner, latents, noise.to(model.device))


def show_latents(hand: ByHand) -> Image.Image:
    """The first picture after its way through the autoencoder, then each channel of its latents in grey."""
    channels = [_grey(channel) for channel in hand.latents[0]]
    captions = ["decoded", *(f"channel {number}" for number in range(1, len(channels) + 1))]
    return image_grid([*_pictures(hand, hand.latents), *channels], len(captions), captions, CELL)


def show_noisy(hand: ByHand, timesteps: list[int]) -> Image.Image:
    """The first picture with the noise of each timestep, decoded."""
    pictures = _pictures(hand, hand.noisy(timesteps))
    return image_grid(pictures, len(timesteps), [f"t = {timestep}" for timestep in timesteps], CELL)


def show_predictions(hand: ByHand, words: list[str], timesteps: list[int]) -> Image.Image:
    """What the model takes the noisy picture for: a row a word, a column a timestep, each with its error."""
    pictures, captions = [], []
    for word in words:
        prompt = expand_prompt(f"a photo of a {word}", hand.concept.placeholder_tokens)
        prediction = hand.predict(prompt, timesteps)
        pictures += _pictures(hand, without_noise(hand, prediction, timesteps))
        errors = zip(timesteps, hand.errors(prediction, timesteps), strict=True)
        captions += [f"{word}, t = {timestep}: {error:.3f}" for timestep, error in errors]
    return image_grid(pictures, len(timesteps), captions, cell=160)


def without_noise(hand: ByHand, prediction: torch.Tensor, timesteps: list[int]) -> torch.Tensor:
    """The clean latents that a prediction amounts to (DDIM, Song et al. 2021, equation 12)."""
    scheduler, noisy = hand.model.scheduler, hand.noisy(timesteps)
    kept = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
    return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()


def frozen_weights(hand: ByHand) -> dict[str, torch.Tensor]:
    """A copy of every weight and buffer of the model but the new rows, by name."""
    parts: list[nn.Module] = [*hand.model.components.text_encoders, hand.model.unet, hand.model.vae]
    return {
        f"{number}.{name}": value.detach().clone()
        for number, part in enumerate(parts)
        for name, value in part.state_dict().items()
        if not name.endswith(".rows")
    }


def gradients(hand: ByHand) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all parameters that have a gradient."""
    parts: list[nn.Module] = [*hand.model.components.text_encoders, hand.model.unet, hand.model.vae]
    return {
        name: tuple(parameter.shape)
        for part in parts
        for name, parameter in part.named_parameters()
        if parameter.grad is not None
    }


def _pictures(hand: ByHand, latents: torch.Tensor) -> list[Image.Image]:
    return [to_image(one) for one in decode(hand.model.vae, latents, hand.model.device)]


def _grey(channel: torch.Tensor) -> Image.Image:
    low, high = channel.min(), channel.max()
    values = ((channel - low) / (high - low) * 255).to(torch.uint8).cpu()
    return Image.fromarray(values.numpy())
