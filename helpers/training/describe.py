"""What the base model sees around a thing, and on it: written down as captions before a word is taught.

A word learns what its pictures share, and what its sentences do not say. So a sentence that names the
place and what the thing wears leaves that out of the word. Which words fit is asked of the base model
itself: with the right ones its loss is the least (Li et al. 2023, “Your Diffusion Model is Secretly a
Zero-Shot Classifier”, arXiv 2303.16203).
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
from ..dataset.images import captions_of, image_paths, load_image, write_captions
from ..model.base_model import MINIATURE
from ..model.tokens import check_words
from ..model.vae import encode
from .model import Model, load_model
from .processes import Processes
from .train import as_concept

# Of all timesteps. Where much noise is, a place is decided, and where less is, what is on: of 120 drawn
# pictures (`python -m tests.bench.seen`, twelve toys of seed 100) these saw both right in all; a place asked
# where noise is middling was right in 41%, and a thing asked where much is, in 94%.
OF_PLACES = (0.85, 0.95)
OF_THINGS = (0.35, 0.65)
_MARGIN = 0.01  # of the loss, by which the best must beat “nothing”
_SENTENCE = "a photo of a {}"


@dataclass(frozen=True)
class Seen:
    """What the model sees in a picture, in words of a sentence; the empty string for nothing."""

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
    """Write captions for the pictures that have none, by what the base model sees in them.

    They are kept as a person's own are, in `images/<name>.txt`: read, edited or deleted like those. It loads
    the base model itself, so that a notebook can pass it to `in_own_process`.

    Returns:
        What was seen, for each picture that had no captions; none of a style.

    Raises:
        UserError: the concept has no pictures, or its base model can't be loaded.
    """
    concept = as_concept(concept)
    with closing(Processes()) as processes:
        seen = _look_at(concept, processes.device) if processes.is_main else []
        processes.wait()
    gc.collect()
    return seen


def _look_at(concept: Concept, device: torch.device) -> list[Seen]:
    if concept.what_to_teach != "object":
        print("The pictures of a style are not described: what they show, your own captions can say.")
        return []
    has_own = captions_of(concept)
    names = [path.name for path in image_paths(concept) if path.name not in has_own]
    if not names:
        print("Each picture has captions already.")
        return []
    eager = concept.changed(training={"compile": False, "gradient_checkpointing": False})
    look, found = Look(eager, load_model(eager, device)), []
    check_words(concept, look.model.components.tokenizers)  # it is asked with the initializer
    for name in progress(names, "describing pictures"):
        found.append(look(name))
        write_captions(concept, name, "\n".join(found[-1].captions))
        print(found[-1])
    return found


class Look:
    """Finds the words under which the model's loss on a picture is the least."""

    def __init__(self, concept: Concept, model: Model):
        self.concept, self.model = concept, model
        self.of_places, self.of_things = OF_PLACES, OF_THINGS
        known = concept.base_model == MINIATURE
        self.places = MINIATURE_PLACES if known else PLACES
        self.things_on = MINIATURE_THINGS_ON if known else THINGS_ON

    def __call__(self, name: str) -> Seen:
        """First what is on, then the place, in a sentence that names what is on."""
        picture = load_image(self.concept, name)
        pixels = preprocess(picture, self.concept.training, self.model.resolution)
        latents = encode(self.model.vae, pixels.unsqueeze(0), self.model.device).mean
        thing_on = self._likeliest(latents, self.things_on, "{}", self.of_things)
        place = self._likeliest(latents, self.places, f"{thing_on} {{}}", self.of_places)
        return Seen(name, place, thing_on)

    def _likeliest(
        self, latents: torch.Tensor, phrases: Sequence[str], rest: str, at: Sequence[float]
    ) -> str:
        """The phrase with the least loss; the empty one where none is better by `_MARGIN`."""
        candidates = ["", *phrases]
        losses = self.losses(latents, [rest.format(phrase) for phrase in candidates], at).mean(dim=1)
        best = int(losses.argmin())
        return candidates[best] if losses[best] < (1 - _MARGIN) * losses[0] else ""

    @torch.no_grad()
    def losses(self, latents: torch.Tensor, phrases: Sequence[str], at: Sequence[float]) -> torch.Tensor:
        """The squared errors of a picture, (phrases, samples), under the same noise for each phrase.

        Args:
            latents: of the picture, (1, channels, height, width).
            phrases: what is said after the initializer.
            at: fractions of all timesteps, one a sample.
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
