"""Captions by the base model itself: the place that it sees around a thing, and what the thing wears.

A word learns what its pictures share and its sentences don't say; so a sentence that names the place keeps
the place out of the word. The model is used as a classifier: the right phrase has the lowest loss (Li et al.
2023, “Your Diffusion Model is Secretly a Zero-Shot Classifier”, arXiv 2303.16203).
"""

import gc
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from ..common.progress import progress
from ..concept.concept import Concept
from ..concept.templates import (
    MINIATURE_PLACES,
    MINIATURE_THINGS_ON,
    NEUTRAL_TEMPLATES,
    PLACES,
    THINGS_ON,
)
from ..dataset.dataset import preprocess, token_ids
from ..dataset.images import captions_of, image_paths, load_image, read_captions, write_captions
from ..model.base_model import MINIATURE
from ..model.tokens import check_words
from ..model.vae import encode
from .model import Model, load_model
from .processes import Processes
from .train import as_concept

# Fractions of all timesteps. A place is decided at much noise, a thing worn at less: with these, both were
# right in all of 120 drawn pictures (`python -m tests.bench.seen`, twelve toys of seed 100). At medium noise
# 41% of the places were right, at much noise 94% of the things.
OF_PLACES = (0.85, 0.95)
OF_THINGS = (0.35, 0.65)
_MARGIN = 0.01  # fraction by which the loss must be lower than without a phrase
_SENTENCE = "a photo of a {}"


@dataclass(frozen=True)
class Seen:
    """What the model sees in a picture, as phrases; an empty one for nothing."""

    picture: str
    place: str
    thing_on: str

    @property
    def words(self) -> str:
        return f"{self.thing_on} {self.place}".strip()

    @property
    def captions(self) -> list[str]:
        return [f"{template} {self.words}" for template in NEUTRAL_TEMPLATES] if self.words else []

    def __str__(self) -> str:
        return f"{self.picture}: {self.words or 'nothing that it could name'}"


def describe_pictures(concept: Concept | str) -> list[Seen]:
    """Write captions for the pictures of an object that have none, by what the base model sees in them.

    They are ordinary captions in `images/<name>.txt`, which a person may edit or delete. It loads the base
    model itself, so that a notebook can pass it to `in_own_process`.

    Returns:
        What was seen in each of these pictures; nothing for a style.

    Raises:
        UserError: the concept has no pictures, or its base model can't be loaded.
    """
    concept = as_concept(concept)
    with closing(Processes()) as processes:
        seen = _describe(concept, processes.device) if processes.is_main else []
        processes.wait()
    gc.collect()
    return seen


def _describe(concept: Concept, device: torch.device) -> list[Seen]:
    if concept.what_to_teach != "object":
        print("The pictures of a style are not described: what they show, your own captions can say.")
        return []
    has_own = captions_of(concept)
    names = [path.name for path in image_paths(concept) if path.name not in has_own]
    if not names:
        print("Each picture has captions already.")
        return []
    eager = concept.changed(training={"compile": False, "gradient_checkpointing": False})
    captioner, found = Captioner(eager, load_model(eager, device)), []
    check_words(concept, captioner.model.components.tokenizers)  # the sentences contain the initializer
    for name in progress(names, "describing pictures"):
        found.append(captioner(name))
        if not read_captions(concept, name):  # a person may have been quicker
            write_captions(concept, name, "\n".join(found[-1].captions))
        print(found[-1])
    return found


class Captioner:
    """Finds the phrases with the lowest loss for a picture."""

    def __init__(self, concept: Concept, model: Model):
        self.concept, self.model = concept, model
        self.of_places, self.of_things = OF_PLACES, OF_THINGS
        known = concept.base_model == MINIATURE
        self.places = MINIATURE_PLACES if known else PLACES
        self.things_on = MINIATURE_THINGS_ON if known else THINGS_ON

    def __call__(self, name: str) -> Seen:
        """Find what the thing wears, then the place, in a sentence that names what it wears."""
        picture = load_image(self.concept, name)
        pixels = preprocess(picture, self.concept.training, self.model.resolution)
        latents = encode(self.model.vae, pixels.unsqueeze(0), self.model.device).mean
        thing_on = self._likeliest(latents, self.things_on, "{}", self.of_things)
        place = self._likeliest(latents, self.places, f"{thing_on} {{}}", self.of_places)
        return Seen(name, place, thing_on)

    def _likeliest(
        self, latents: torch.Tensor, phrases: Sequence[str], rest: str, at: Sequence[float]
    ) -> str:
        """The phrase with the lowest loss; empty if no phrase lowers it by `_MARGIN`."""
        candidates = ["", *phrases]
        losses = self.losses(latents, [rest.format(phrase) for phrase in candidates], at).mean(dim=1)
        best = int(losses.argmin())
        return candidates[best] if losses[best] < (1 - _MARGIN) * losses[0] else ""

    @torch.no_grad()
    def losses(self, latents: torch.Tensor, phrases: Sequence[str], at: Sequence[float]) -> torch.Tensor:
        """The squared errors for a picture, (phrases, samples), with the same noise for each phrase.

        Args:
            latents: of the picture, (1, channels, height, width).
            phrases: follow the initializer in the sentence.
            at: for each sample, a fraction of all timesteps.
        """
        model = self.model
        steps = model.scheduler.config.num_train_timesteps
        timesteps = (torch.tensor(at) * steps).long().to(model.device)
        subject = _SENTENCE.format(self.concept.initializer_token)
        sentences = [" ".join([subject, *phrase.split()]) for phrase in phrases]
        ids = token_ids(model.components.tokenizers, sentences, model.device)
        generator = torch.Generator().manual_seed(self.concept.training.seed)
        noise = torch.randn(len(at), *latents.shape[1:], generator=generator).to(model.device)
        latents = latents.expand_as(noise)
        told = ([of_one[[row]].expand(len(at), -1) for of_one in ids] for row in range(len(sentences)))
        return torch.stack([model.errors(latents, noise, timesteps, one) for one in told])
