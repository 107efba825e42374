"""Everything random in a training step, drawn from one generator whose state can be saved."""

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from ..concept.concept import Concept, TrainingSettings
from ..dataset.dataset import preprocess, sentence_of
from ..dataset.images import load_images
from ..model.vae import Posterior, encode
from .model import Model
from .processes import Processes


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
        self.all = encode(model.vae, torch.stack(pixels), model.device)
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
        self._means = encode(model.vae, torch.stack(pixels), model.device).mean
        self.shape = tuple(self._means.shape[1:])
        self.note = "Random crops are encoded at each step, since no cache can hold them: this is slower."

    def posterior(
        self, indices: list[int], flipped: list[bool], share: slice, generator: torch.Generator
    ) -> Posterior:
        seeds = torch.randint(2**31, (len(indices),), generator=generator).tolist()
        drawn = list(zip(indices, flipped, seeds, strict=True))[share]
        pixels = torch.stack([self._crop(*one) for one in drawn])
        return encode(self.model.vae, pixels, self.model.device, keep=True)

    def means(self) -> torch.Tensor:
        return self._means

    def _crop(self, index: int, flip: bool, seed: int) -> torch.Tensor:
        return preprocess(self.images[index], self.settings, self.model.resolution, flip, random.Random(seed))


class Deck:
    """Cards dealt without putting back; shuffled anew when all are gone. The place in the data."""

    def __init__(self, cards: int):
        self.cards, self.left = cards, []

    def deal(self, count: int, generator: torch.Generator) -> list[int]:
        while len(self.left) < count:
            self.left += torch.randperm(self.cards, generator=generator).tolist()
        dealt, self.left = self.left[:count], self.left[count:]
        return dealt


class Draws:
    """One concept's draws. Each method draws for the whole batch and returns this process' share.

    With N processes the batch is N times `train_batch_size`. All processes draw the same numbers, so
    that two processes see what one would see with a batch twice as large.

    Args:
        latents: where the pictures come from.
        sentences: token ids to choose from, one (sentences, length) a tokenizer, on the device.
        weights: from timesteps (batch,) to the loss's weights (batch,).
        captions: as in `Sentences`.
    """

    def __init__(
        self,
        latents: LatentSource,
        sentences: list[torch.Tensor],
        settings: TrainingSettings,
        processes: Processes,
        weights: Callable[[torch.Tensor], torch.Tensor],
        captions: Mapping[int, range] | None = None,
    ):
        self.source, self.all_sentences, self.settings, self.weights = latents, sentences, settings, weights
        self.device, self.captions = sentences[0].device, captions or {}
        for_any_picture = len(sentences[0]) - sum(map(len, self.captions.values()))
        self.pictures, self.deck = Deck(latents.pictures), Deck(for_any_picture)
        self.shown: list[int] = []  # the pictures of this step
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.whole = settings.train_batch_size * processes.count
        first = settings.train_batch_size * processes.index
        self.share = slice(first, first + settings.train_batch_size)

    def latents(self) -> torch.Tensor:
        """Latents of the next pictures, some mirrored: (batch, channels, height, width), float32."""
        self.shown = indices = self.pictures.deal(self.whole, self.generator)
        mirrored = torch.rand(self.whole, generator=self.generator) < self.settings.flip_probability
        posterior = self.source.posterior(indices, mirrored.tolist(), self.share, self.generator)
        return self._repeated(posterior.draw(self._normal(self.whole, self.share)))

    def noise(self) -> torch.Tensor:
        """Standard normal noise in the latents' shape."""
        return self._normal(self.whole * self._times, self._samples)

    def timesteps(self) -> torch.Tensor:
        """From `first_timestep` to `last_timestep`, each as likely as any other, (batch,).

        Within a batch they are spread over the range from one random start, so that no step sees only
        easy ones: the low-discrepancy sampler of Kingma et al. 2021 (arXiv 2107.00630, appendix I.1).
        """
        first, last = self.settings.first_timestep, self.settings.last_timestep
        count = self.whole * self._times
        start = torch.rand(1, generator=self.generator)
        places = (start + torch.randperm(count, generator=self.generator) / count) % 1
        drawn = first + (places * (last + 1 - first)).long()
        return drawn.clamp(max=last)[self._samples].to(self.device)

    def sentences(self) -> list[torch.Tensor]:
        """Token ids of a sentence for each sample of `latents`, one (batch, length) a tokenizer."""
        cards = self.deck.deal(self.whole, self.generator)
        dealt = zip(self.shown, cards, strict=True)
        picked = [sentence_of(picture, card, self.captions) for picture, card in dealt][self.share]
        return [self._repeated(ids[picked]) for ids in self.all_sentences]

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "pictures": list(self.pictures.left),
            "sentences": list(self.deck.left),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.pictures.left, self.deck.left = list(state["pictures"]), list(state["sentences"])

    @property
    def _times(self) -> int:
        return self.settings.timesteps_per_picture

    @property
    def _samples(self) -> slice:
        """The process' share, counted in samples: each picture has several timesteps."""
        return slice(self.share.start * self._times, self.share.stop * self._times)

    def _repeated(self, values: torch.Tensor) -> torch.Tensor:
        return values.repeat_interleave(self._times, dim=0) if self._times > 1 else values

    def _normal(self, count: int, share: slice) -> torch.Tensor:
        return torch.randn(count, *self.source.shape, generator=self.generator)[share].to(self.device)


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
        shares = timesteps.chunk(len(self.each))
        return torch.cat([draws.weights(share) for draws, share in zip(self.each, shares, strict=True)])
