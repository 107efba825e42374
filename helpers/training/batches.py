"""What a training step is given: batches of the data set, as latents, with noise and timesteps."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..concept.concept import TrainingSettings
from ..dataset.dataset import TextualInversionDataset, View
from ..model.vae import Posterior, encode
from .model import Model
from .processes import Processes


class LatentCache:
    """A transform of the data set: views to latents, each encoded once.

    It keeps the posterior's mean and deviation of each picture, and of its mirror image where it is drawn.
    Drawing from them at each step gives the same distribution as encoding at each step.
    """

    def __init__(self, dataset: TextualInversionDataset, model: Model):
        views = dataset.views()
        pixels = torch.stack([dataset.pixel_values(view) for view in views])
        self.posterior = encode(model.vae, pixels, model.device)
        self._places = {view: place for place, view in enumerate(views)}
        mirrored = " and their mirror images" if len(views) > len(dataset) else ""
        self.note = f"{len(dataset)} pictures{mirrored} were encoded once, for all steps."

    def __call__(self, view: View) -> dict[str, torch.Tensor]:
        place = self._places[view]
        return {"mean": self.posterior.mean[place], "deviation": self.posterior.deviation[place]}

    def means(self) -> torch.Tensor:
        """Of each view, in the order of `views`: (views, channels, height, width)."""
        return self.posterior.mean


class FreshLatents:
    """The same for random crops, which no cache can hold: the VAE stays on the device and encodes each."""

    note = "Random crops are encoded at each step, since no cache can hold them: this is slower."

    def __init__(self, dataset: TextualInversionDataset, model: Model):
        self.dataset, self.model = dataset, model
        middles = [dataset.pixel_values(View(picture)) for picture in range(len(dataset))]
        self._means = encode(model.vae, torch.stack(middles), model.device).mean

    def __call__(self, view: View) -> dict[str, torch.Tensor]:
        pixels = self.dataset.pixel_values(view).unsqueeze(0)
        posterior = encode(self.model.vae, pixels, self.model.device, keep=True)
        return {"mean": posterior.mean[0], "deviation": posterior.deviation[0]}

    def means(self) -> torch.Tensor:
        """Of each picture's middle: (pictures, channels, height, width)."""
        return self._means


def to_latents(dataset: TextualInversionDataset, model: Model) -> LatentCache | FreshLatents:
    """Let a data set give latents from now on, `mean` and `deviation` in place of `pixel_values`."""
    kind = FreshLatents if dataset.settings.random_crop else LatentCache
    dataset.transform = kind(dataset, model)
    return dataset.transform


class EndlessBatches(Sampler):
    """The numbers of the samples in each of this process' batches, without an end.

    With N processes a whole batch is N times `size`, and each process takes its own part of it.

    Attributes:
        taken: batches so far; set it to go on from there.
    """

    def __init__(self, size: int, processes: Processes):
        self.size, self.processes, self.taken = size, processes, 0

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            first = (self.taken * self.processes.count + self.processes.index) * self.size
            self.taken += 1
            yield list(range(first, first + self.size))


class Draws:
    """One concept's batches. Noise and timesteps come from one generator whose state can be saved.

    All processes draw the same numbers for the whole batch, and each returns its part, so that two
    processes see what one would see with a batch twice as large.

    Args:
        dataset: gives the `mean` and `deviation` of latents, and `input_ids`.
        weights: from timesteps (batch,) to the loss's weights (batch,).
        device: where the step is computed.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainingSettings,
        processes: Processes,
        weights: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device | str = "cpu",
    ):
        self.settings, self.weights, self.device = settings, weights, device
        self.sampler = EndlessBatches(settings.train_batch_size, processes)
        self.batches = iter(DataLoader(dataset, batch_sampler=self.sampler))
        self.input_ids: list[torch.Tensor] = []  # of this step, until `sentences` gives them
        self.shape = torch.Size()  # of one latent
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.whole_batch = settings.train_batch_size * processes.count
        first = settings.train_batch_size * processes.index
        self.part = slice(first, first + settings.train_batch_size)

    def latents(self) -> torch.Tensor:
        """Latents of the next pictures, some mirrored: (batch, channels, height, width), float32."""
        batch = next(self.batches)
        self.input_ids, self.shape = batch["input_ids"], batch["mean"].shape[1:]
        posterior = Posterior(batch["mean"], batch["deviation"])
        return self._repeated(posterior.draw(self._normal(self.whole_batch, self.part)))

    def noise(self) -> torch.Tensor:
        """Standard normal noise in the latents' shape."""
        return self._normal(self.whole_batch * self._times, self._samples)

    def timesteps(self) -> torch.Tensor:
        """From `first_timestep` to `last_timestep`, each as likely as any other, (batch,).

        Within a batch they are spread over the range from one random start, so that no step sees only
        easy ones: the low-discrepancy sampler of Kingma et al. 2021 (arXiv 2107.00630, appendix I.1).
        """
        first, last = self.settings.first_timestep, self.settings.last_timestep
        count = self.whole_batch * self._times
        start = torch.rand(1, generator=self.generator)
        places = (start + torch.randperm(count, generator=self.generator) / count) % 1
        drawn = first + (places * (last + 1 - first)).long()
        return drawn.clamp(max=last)[self._samples].to(self.device)

    def sentences(self) -> list[torch.Tensor]:
        """Token ids of a sentence for each sample of `latents`, one (batch, length) a tokenizer."""
        return [self._repeated(ids.to(self.device)) for ids in self.input_ids]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "batches": self.sampler.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.sampler.taken = state["batches"]

    @property
    def _times(self) -> int:
        return self.settings.timesteps_per_picture

    @property
    def _samples(self) -> slice:
        """The process' part, counted in samples: each picture has several timesteps."""
        return slice(self.part.start * self._times, self.part.stop * self._times)

    def _repeated(self, values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(self._times, dim=0) if self._times > 1 else values

    def _normal(self, count: int, part: slice) -> torch.Tensor:
        return torch.randn(count, *self.shape, generator=self.generator)[part].to(self.device)


class DrawsTogether:
    """The draws of several concepts as one batch, concept after concept."""

    def __init__(self, draws: list[Draws]):
        self.each = draws

    def latents(self) -> torch.Tensor:
        return torch.cat([draws.latents() for draws in self.each])

    def noise(self) -> torch.Tensor:
        return torch.cat([draws.noise() for draws in self.each])

    def timesteps(self) -> torch.Tensor:
        return torch.cat([draws.timesteps() for draws in self.each])

    def sentences(self) -> list[torch.Tensor]:
        return [torch.cat(ids) for ids in zip(*(draws.sentences() for draws in self.each), strict=True)]

    def weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        parts = timesteps.chunk(len(self.each))
        return torch.cat([draws.weights(part) for draws, part in zip(self.each, parts, strict=True)])
