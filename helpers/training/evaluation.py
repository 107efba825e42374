"""The fixed loss: the same pictures, noise, timesteps and sentences each time it is asked."""

from collections.abc import Mapping

import torch

from ..concept import TrainingSettings
from .model import Model
from .sentences import sentence_of
from .step import squared_errors, target_of

SAMPLES = 16
_BATCHES_AT_ONCE = 4  # without a gradient nothing is kept for a backward pass


class FixedLoss:
    """A loss without chance, drawn once, so that two values differ by what was learned alone.

    Voronov et al. 2023 (arXiv 2302.04841) show that the training loss says nothing about progress,
    and that this one does.

    Args:
        latents: (pictures, channels, height, width) to take from in turn.
        sentences: token ids to take from in turn, one (sentences, length) a tokenizer.
        seed: for noise and timesteps; the timesteps are spread evenly over the range trained on.
        captions: the last of the sentences, which go with some latents only: by the latent's place.
    """

    def __init__(
        self,
        latents: torch.Tensor,
        sentences: list[torch.Tensor],
        settings: TrainingSettings,
        seed: int,
        samples: int = SAMPLES,
        captions: Mapping[int, range] | None = None,
    ):
        captions = captions or {}
        generator = torch.Generator().manual_seed(seed)
        turn = torch.randperm(samples, generator=generator)
        device = latents.device
        self.latents = latents[turn % len(latents)]
        for_any = len(sentences[0]) - len({place for own in captions.values() for place in own})
        picked = [sentence_of(place % len(latents), place % for_any, captions) for place in turn.tolist()]
        self.sentences = [ids[picked] for ids in sentences]
        self.noise = torch.randn(self.latents.shape, generator=generator).to(device)
        first, last = settings.first_timestep, settings.last_timestep
        edges = torch.linspace(first, last + 1, samples + 1)
        self.timesteps = ((edges[:-1] + edges[1:]) / 2).long().to(device)
        self.batch = _BATCHES_AT_ONCE * settings.train_batch_size

    @torch.no_grad()
    def __call__(self, model: Model) -> float:
        """The mean squared error over all samples."""
        parts = torch.arange(len(self.latents)).split(self.batch)
        return torch.cat([self._errors(model, part) for part in parts]).mean().item()

    def _errors(self, model: Model, part: torch.Tensor) -> torch.Tensor:
        latents, noise, timesteps = self.latents[part], self.noise[part], self.timesteps[part]
        noisy = model.scheduler.add_noise(latents, noise, timesteps)
        conditioning = model.embed([ids[part] for ids in self.sentences])
        prediction = model.predict(noisy, timesteps, conditioning)
        return squared_errors(prediction, target_of(model.scheduler, latents, noise, timesteps))
