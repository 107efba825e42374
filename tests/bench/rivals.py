"""The loops that everyone knows, written as they are: what ours is measured against.

Both train with AdamW on the text encoder's whole embedding table, encode each picture anew at each
step, and take one picture a step. They differ in how they keep the other rows where they were.
"""

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from helpers.concept.concept import Concept
from helpers.concept.embedding import Rows
from helpers.dataset.dataset import TextualInversionDataset
from helpers.model.base_model import Components
from helpers.model.tokens import initializer_ids
from helpers.training.model import Model
from helpers.training.step import target_of

OWN_RATE = 5e-4  # the source tutorial's


class SourceLoop:
    """The source tutorial's loop: the gradient of all other rows is set to zero before AdamW's step.

    AdamW still applies its weight decay (torch's default, 0.01) to these rows.

    Args:
        parts: a base model of one text encoder, in float32; its table is replaced by a longer one.
        rate: AdamW's learning rate, constant.
    """

    def __init__(self, parts: Components, concept: Concept, rate: float = OWN_RATE, seed: int = 0):
        torch.manual_seed(seed)
        self.parts, self.resolution = parts, concept.training.resolution or parts.resolution
        self.model = Model(parts, torch.device("cpu"), torch.float32, self.resolution)
        self.tokenizer, self.text_encoder = parts.tokenizers[0], parts.text_encoders[0].train()
        self.words = self._add_word(concept)
        self.table.requires_grad_(True)
        self.optimizer = torch.optim.AdamW([self.table], lr=rate)
        self.batches = self._batches(concept, seed)

    @property
    def table(self) -> torch.nn.Parameter:
        """All embeddings, (entries, width), the new ones last."""
        return self.text_encoder.get_input_embeddings().weight

    def step(self) -> None:
        """One step at batch 1."""
        batch = next(self.batches)
        with torch.no_grad():
            posterior = self.parts.vae.encode(batch["pixel_values"]).latent_dist
        latents = posterior.sample() * self.parts.vae.config.scaling_factor
        noise, scheduler = torch.randn_like(latents), self.parts.scheduler
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        states = self.text_encoder(batch["input_ids"][0])[0]
        prediction = self.parts.unet(noisy, timesteps, encoder_hidden_states=states).sample
        F.mse_loss(prediction, target_of(scheduler, latents, noise, timesteps)).backward()
        self.move()
        self.optimizer.zero_grad()

    def move(self) -> None:
        """From the table's gradient to its new values."""
        self.table.grad[self._others()] = 0
        self.optimizer.step()

    def rows(self) -> Rows:
        """The word's rows, as training leaves them: one (vectors, width)."""
        return [self.table.detach()[self.words].clone()]

    def _others(self) -> torch.Tensor:
        return ~torch.isin(torch.arange(len(self.table)), torch.tensor(self.words))

    @torch.no_grad()
    def _add_word(self, concept: Concept) -> list[int]:
        """The ids of the word's tokens, one a vector, which start as the initializer's."""
        start = initializer_ids(self.tokenizer, concept.initializer_token, concept.vectors)
        self.tokenizer.add_tokens(concept.placeholder_tokens)
        self.text_encoder.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        words = self.tokenizer.convert_tokens_to_ids(concept.placeholder_tokens)
        self.table[words] = self.table[start]
        return words

    def _batches(self, concept: Concept, seed: int) -> Iterator[dict]:
        concept = concept.changed(training={"seed": seed})
        examples = TextualInversionDataset(concept, [self.tokenizer], self.resolution)
        yield from DataLoader(examples, batch_size=1, sampler=itertools.count())


class DiffusersLoop(SourceLoop):
    """What diffusers' `textual_inversion.py` does: AdamW moves all rows, then the others are copied back."""

    def __init__(self, parts: Components, concept: Concept, rate: float = OWN_RATE, seed: int = 0):
        super().__init__(parts, concept, rate, seed)
        self.original = self.table.detach().clone()

    def move(self) -> None:
        self.optimizer.step()
        others = self._others()
        with torch.no_grad():
            self.table[others] = self.original[others]


RIVALS = {"source": SourceLoop, "diffusers": DiffusersLoop}
