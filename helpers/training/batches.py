"""The input of a training step: batches of the data set as latents, with noise and timesteps."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..common.sheets import counted
from ..concept.concept import TrainingSettings
from ..dataset.dataset import TextualInversionDataset, View
from ..model.vae import Posterior, encode
from .model import Model
from .processes import Processes


class LatentCache:
    """A transform of the data set: a view to the mean and deviation of its latents, each encoded once.

    Sampling from these at each step gives the same distribution as encoding at each step. Random crops are
    encoded when they are drawn; the VAE then stays on the device.

    Attributes:
        posterior: of every view; with random crops, of every picture's center crop.
        note: a sentence that says what is encoded when.
    """

    def __init__(self, dataset: TextualInversionDataset, model: Model):
        self._dataset, self._model = dataset, model
        views = dataset.views()
        mirrored = ", each also mirrored" if len(views) > len(dataset) else ""
        self.note = f"{counted(len(dataset), 'picture')}{mirrored}: encoded once, for all steps."
        if dataset.settings.random_crop:
            views = [View(picture) for picture in range(len(dataset))]
            self.note = "Random crops are encoded at each step, since no cache can hold them: this is slower."
        pixels = torch.stack([dataset.pixel_values(view) for view in views])
        self.posterior = encode(model.vae, pixels, model.device)
        self._places = {view: place for place, view in enumerate(views)}

    def __call__(self, view: View) -> dict[str, torch.Tensor]:
        posterior, place = self.posterior, self._places.get(view)
        if place is None:  # a random crop
            pixels = self._dataset.pixel_values(view).unsqueeze(0)
            posterior, place = encode(self._model.vae, pixels, self._model.device, keep=True), 0
        return {"mean": posterior.mean[place], "deviation": posterior.deviation[place]}


class EndlessBatches(Sampler):
    """Sample numbers for the batches of this process, without end; `taken` counts the batches so far.

    N processes share a batch of N times `size`, of which each takes its own part.
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

    Every process draws the same numbers for the whole batch and keeps its own part, so that two processes
    see what one would see with twice the batch.

    Args:
        dataset: gives `mean` and `deviation` of the latents, and `input_ids`.
        weights: maps timesteps (batch,) to weights of the loss (batch,).
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainingSettings,
        processes: Processes,
        weights: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device | str = "cpu",
    ):
        self.settings, self.processes = settings, processes
        self.weights, self.device = weights, device
        self.sampler = EndlessBatches(settings.train_batch_size, processes)
        self.batches = iter(DataLoader(dataset, batch_sampler=self.sampler))
        self.input_ids: list[torch.Tensor] = []  # of the current batch, for `sentences`
        self.shape = torch.Size()  # of one latent
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.pictures = settings.train_batch_size * processes.count  # of the whole batch
        self.samples = self.pictures * settings.timesteps_per_picture

    def latents(self) -> torch.Tensor:
        """Latents of the next pictures, some mirrored: (batch, channels, height, width), float32."""
        batch = next(self.batches)
        self.input_ids, self.shape = batch["input_ids"], batch["mean"].shape[1:]
        posterior = Posterior(batch["mean"], batch["deviation"])
        return self._repeated(posterior.draw(self._normal(self.pictures)))

    def noise(self) -> torch.Tensor:
        """Standard normal noise in the latents' shape."""
        return self._normal(self.samples)

    def timesteps(self) -> torch.Tensor:
        """Uniform over `first_timestep` to `last_timestep`, (batch,).

        Within a batch they are evenly spread from one random start, so that no step sees only easy ones:
        the low-discrepancy sampler of Kingma et al. 2021 (arXiv 2107.00630, appendix I.1).
        """
        first, last = self.settings.first_timestep, self.settings.last_timestep
        start = torch.rand(1, generator=self.generator)
        places = (start + torch.randperm(self.samples, generator=self.generator) / self.samples) % 1
        timesteps = first + (places * (last + 1 - first)).long()
        return self._own(timesteps.clamp(max=last))

    def sentences(self) -> list[torch.Tensor]:
        """Token ids of the sentences that go with `latents`: for each tokenizer (batch, length)."""
        return [self._repeated(ids.to(self.device)) for ids in self.input_ids]

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "batches": self.sampler.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.sampler.taken = state["batches"]

    def _repeated(self, values: torch.Tensor) -> torch.Tensor:
        times = self.settings.timesteps_per_picture
        return values.repeat_interleave(times, dim=0) if times > 1 else values

    def _normal(self, count: int) -> torch.Tensor:
        return self._own(torch.randn(count, *self.shape, generator=self.generator))

    def _own(self, values: torch.Tensor) -> torch.Tensor:
        """This process' part of the values for the whole batch."""
        return values.chunk(self.processes.count)[self.processes.index].to(self.device)


class DrawsTogether:
    """The batches of several concepts as one, concept after concept."""

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
