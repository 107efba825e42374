"""How good rows are: the fixed loss, the score of a checkpoint, and words to start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pvariance

import torch
from PIL import Image

from ..concept.concept import Concept, TrainingSettings
from ..dataset.dataset import (
    held_out_templates,
    preprocess,
    sentence_of,
    token_ids,
    with_captions,
    with_word,
)
from ..dataset.images import load_images
from ..inference.examples import words_to_start_from
from ..model.base_model import load_tokenizers
from ..model.tokens import initializer_ids, known_words
from ..model.vae import encode
from .learner import Learner, open_learner
from .model import Model

SAMPLES = 16
_BATCHES_AT_ONCE = 4  # without a gradient, a forward pass takes less memory


class FixedLoss:
    """A loss on samples, noise and timesteps that are drawn once, so that only the rows change its value.

    Voronov et al. 2023 (arXiv 2302.04841) show that the training loss says nothing about progress, and that
    this one does. Its timesteps are spread evenly over the trained range.

    Args:
        latents: (views, channels, height, width), taken in turn; all pictures, then all again in other views.
        sentences: token ids, (sentences, length) for each tokenizer, taken in turn.
        captions: by the index of a picture, the indices of its own sentences, which are the last ones.
        pictures: how many there are.
    """

    def __init__(
        self,
        latents: torch.Tensor,
        sentences: list[torch.Tensor],
        captions: Mapping[int, range],
        pictures: int,
        settings: TrainingSettings,
        seed: int,
        samples: int = SAMPLES,
    ):
        generator = torch.Generator().manual_seed(seed)
        turn = torch.randperm(samples, generator=generator)
        device = latents.device
        self.latents = latents[turn % len(latents)]
        for_any = len(sentences[0]) - sum(map(len, captions.values()))
        shown = (turn % len(latents) % pictures).tolist()
        drawn = (turn % for_any).tolist()
        picked = [sentence_of(*pair, captions) for pair in zip(shown, drawn, strict=True)]
        self.sentences = [ids[picked] for ids in sentences]
        self.noise = torch.randn(self.latents.shape, generator=generator).to(device)
        first, last = settings.first_timestep, settings.last_timestep
        edges = torch.linspace(first, last + 1, samples + 1)
        self.timesteps = ((edges[:-1] + edges[1:]) / 2).long().to(device)
        self.batch = _BATCHES_AT_ONCE * settings.train_batch_size

    @torch.no_grad()
    def __call__(self, model: Model) -> float:
        """The mean squared error over all samples."""
        errors = []
        for part in torch.arange(len(self.latents)).split(self.batch):
            sentences = [ids[part] for ids in self.sentences]
            errors.append(model.errors(self.latents[part], self.noise[part], self.timesteps[part], sentences))
        return torch.cat(errors).mean().item()


# The score that says which checkpoint is best, from crops and prompts that training does not use.
CLOSER = 0.85
# More pictures than these take twice the samples: 32 look less than twice at each of nine, as they are and
# mirrored, and chose a step too early for one toy.
_FEW_PICTURES = 5
_SURROUNDINGS = (" on a beach", " in the snow", " in a forest", " in a city", " at night", " in a room")
_PLAIN = {"object": "a photo of a {}", "style": "a painting in the style of {}"}


class HeldOutScore:
    """The default score of a checkpoint, called with the model and its current rows; more is better.

    It is the gain in a fixed loss over the initializer, on the pictures as training crops them and closer,
    with sentences and noise that training does not use; a gain is multiplied by `Editability`. Make it before
    the first step, while the rows are the initializer's.
    """

    def __init__(self, concept: Concept, model: Model):
        settings = concept.training
        latents = encode(model.vae, _views(concept, model.resolution), model.device).mean
        # What the captions say is not learned by the word: without them the loss would seem to rise.
        templates, captions = with_captions(concept, held_out_templates(concept))
        ids = token_ids(model.components.tokenizers, with_word(concept, templates), model.device)
        pictures, seed = len(latents) // 2, settings.seed + 2
        samples = 2 * SAMPLES if pictures <= _FEW_PICTURES else 4 * SAMPLES
        self.loss = FixedLoss(latents, ids, captions, pictures, settings, seed, samples)
        self.start = self.loss(model)
        self.editability = Editability(concept, model, latents[:1])

    def __call__(self, model: Model) -> float:
        gain = self.start - self.loss(model)
        return gain * self.editability(model) if gain > 0 else gain


class Editability:
    """How much surroundings in a prompt still change the prediction for the word, against the initializer.

    It is measured on one picture with much noise, where the layout is decided.
    """

    def __init__(self, concept: Concept, model: Model, latents: torch.Tensor):
        plain = _PLAIN[concept.what_to_teach]
        templates = [plain, *(plain + around for around in _SURROUNDINGS)]
        tokenizers = model.components.tokenizers
        self.ids = token_ids(tokenizers, with_word(concept, templates), model.device)
        timestep = int(0.8 * model.scheduler.config.num_train_timesteps)
        self.timesteps = torch.full((len(templates),), timestep, device=model.device)
        generator = torch.Generator().manual_seed(concept.training.seed + 3)
        noise = torch.randn(latents.shape, generator=generator).to(model.device)
        noisy = model.scheduler.add_noise(latents, noise, self.timesteps[:1])
        self.noisy = noisy.expand(len(templates), *noisy.shape[1:])
        words = [template.replace("{}", concept.initializer_token) for template in templates]
        self.wanted = self._changes(model, token_ids(tokenizers, words, model.device))

    def __call__(self, model: Model) -> float:
        """The mean, over surroundings, of <change, wanted change> / |wanted change|^2, clamped to 0..1."""
        changes = self._changes(model, self.ids)
        along = (changes * self.wanted).sum(dim=1) / self.wanted.square().sum(dim=1).clamp_min(1e-12)
        return along.clamp(0, 1).mean().item()

    @torch.no_grad()
    def _changes(self, model: Model, ids: list[torch.Tensor]) -> torch.Tensor:
        """The change of the prediction by each of the surroundings, (surroundings, values)."""
        prediction = model.predict(self.noisy, self.timesteps, model.embed(ids)).flatten(1)
        return prediction[1:] - prediction[:1]


def _views(concept: Concept, resolution: int) -> torch.Tensor:
    """The pictures, then the same closer, (2 * pictures, 3, resolution, resolution) in -1..1."""
    images = load_images(concept)
    views = [*images, *map(_closer, images)]
    return torch.stack([preprocess(image, concept.training, resolution) for image in views])


def _closer(image: Image.Image) -> Image.Image:
    side = round(min(image.size) * CLOSER)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


# When a word is learned: the rule of Voronov et al. 2023, “Is This Loss Informative?”.
WINDOW = 8  # the number of last losses
THRESHOLD = 0.15  # their variance must be less than this fraction of the whole run's


def is_learned(losses: Sequence[float]) -> bool:
    """Whether the fixed loss has stopped changing (arXiv 2302.04841, section 4.2, “DVAR”)."""
    if len(losses) < 2 * WINDOW:
        return False
    return pvariance(losses[-WINDOW:]) < THRESHOLD * pvariance(losses)


# Which word to start from: the one with the lowest fixed loss before training.
_FEW_SAMPLES = 8  # of the fixed loss; fewer than in a run, since only the order matters


@dataclass(frozen=True)
class Candidate:
    """A word or phrase, and the fixed loss of a row that starts from it."""

    words: str
    fixed_loss: float


def try_initializers(concept: Concept, candidates: Sequence[str] = ()) -> list[Candidate]:
    """`rank_initializers` for a concept, which may have no initializer yet.

    It loads the base model into this process, and onto the GPU if there is one.
    """
    candidates = candidates or _proposals(concept)
    first = concept.initializer_token or candidates[0]
    model, learner = open_learner(concept.changed(initializer_token=first))
    return rank_initializers(learner, model, candidates)


def print_proposals(concept: Concept, count: int = 6) -> None:
    """Print the words that suit a concept's pictures best; errors as for `try_initializers`."""
    for candidate in try_initializers(concept)[:count]:
        print(f"{candidate.fixed_loss:.4f} {candidate.words}")


def rank_initializers(learner: Learner, model: Model, candidates: Sequence[str] = ()) -> list[Candidate]:
    """Try words and phrases as initializer, including the concept's own; the best one comes first.

    The default candidates are words for things that the model knows. The learner keeps its rows.

    Raises:
        UserError: a candidate has more tokens than the concept has vectors.
    """
    concept, tokenizers = learner.concept, model.components.tokenizers
    words_tried = [concept.initializer_token, *(candidates or _proposals(concept))]
    ids = {
        words: [initializer_ids(tokenizer, words, concept.vectors) for tokenizer in tokenizers]
        for words in words_tried
    }
    loss, rows = fixed_loss(learner, model, _FEW_SAMPLES), learner.copy_rows()
    tried = []
    for words, of_each_encoder in ids.items():
        for learned, of_one in zip(learner.rows, of_each_encoder, strict=True):
            learned.start_from(of_one)
        tried.append(Candidate(words, loss(model)))
    learner.set_rows(rows)
    return sorted(tried, key=lambda candidate: candidate.fixed_loss)


def _proposals(concept: Concept) -> list[str]:
    """Words for things that are a single token in each of the model's tokenizers."""
    known = [known_words(tokenizer) for tokenizer in load_tokenizers(concept.base_model)]
    return [word for word in words_to_start_from(concept) if all(word in words for words in known)]


def fixed_loss(learner: Learner, model: Model, samples: int = SAMPLES) -> FixedLoss:
    """The fixed loss of a learner, on the pictures and sentences of its training."""
    dataset, latents, seed = learner.dataset, learner.latents.posterior.mean, learner.settings.seed + 1
    ids = [of_one.to(model.device) for of_one in dataset.input_ids]
    return FixedLoss(latents, ids, dataset.captions, len(dataset), learner.settings, seed, samples)
