"""Which word to start from: several are tried, by the fixed loss of each before any training."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..concept import Concept
from ..errors import UserError
from ..tokens import initializer_ids
from .evaluation import SAMPLES, FixedLoss
from .learner import Learner
from .model import Model, load_model
from .processes import Processes
from .sentences import token_ids, training_sentences, with_word

_SAMPLES = 8  # of the fixed loss: fewer than a run's own look takes, since only an order is wanted


@dataclass(frozen=True)
class Candidate:
    """A word or phrase and how badly the model predicts our pictures when it is told that word."""

    words: str
    fixed_loss: float


def try_initializers(concept: Concept, candidates: Sequence[str]) -> list[Candidate]:
    """Try the concept's own initializer and others before any training; the best one first.

    It loads the base model into this process, and uses the GPU where there is one.

    Raises:
        UserError: as in `rank_initializers`, or the concept can't be trained as it is.
    """
    processes = Processes()
    try:
        model = load_model(concept, processes.device)
        learner = Learner(concept, model, processes)
    finally:
        processes.close()
    return rank_initializers(learner, model, list(dict.fromkeys([concept.initializer_token, *candidates])))


def rank_initializers(learner: Learner, model: Model, candidates: Sequence[str]) -> list[Candidate]:
    """Try words and phrases as initializer; the best one first. The learner's rows stay as they are.

    A phrase may have as many tokens as the concept has vectors.

    Raises:
        UserError: none is given, or one has more tokens than there are vectors.
    """
    if not candidates:
        raise UserError("Give one word or more to try, for example [“toy”, “figurine”].")
    tokenizers, vectors = model.components.tokenizers, learner.concept.vectors
    ids = {words: [initializer_ids(one, words, vectors) for one in tokenizers] for words in candidates}
    loss, rows = fixed_loss(learner, model, _SAMPLES), learner.copy_rows()
    tried = []
    for words, of_each_encoder in ids.items():
        for learned, of_one in zip(learner.rows, of_each_encoder, strict=True):
            learned.start_from(of_one)
        tried.append(Candidate(words, loss(model)))
    learner.set_rows(rows)
    return sorted(tried, key=lambda candidate: candidate.fixed_loss)


def fixed_loss(learner: Learner, model: Model, samples: int = SAMPLES) -> FixedLoss:
    """The fixed loss of a learner, on the pictures and sentences that it trains with."""
    concept, latents = learner.concept, learner.latents.means()
    sentences = training_sentences(concept)
    ids = token_ids(model.components.tokenizers, with_word(concept, sentences.templates), model.device)
    pictures = learner.latents.pictures  # after them come their mirror images
    captions = {
        place: sentences.captions[place % pictures]
        for place in range(len(latents))
        if place % pictures in sentences.captions
    }
    seed = concept.training.seed + 1
    return FixedLoss(latents, ids, concept.training, seed, samples, captions)
