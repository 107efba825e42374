"""What all contenders share: the five pictures, the model, and the loss that compares them."""

import shutil
from pathlib import Path

import torch

from helpers.common.places import data_folder, repository_folder
from helpers.concept.concept import Concept
from helpers.dataset.dataset import TextualInversionDataset, token_ids, with_word
from helpers.model.base_model import MINIATURE, load_components
from helpers.training.batches import LatentCache
from helpers.training.evaluate import FixedLoss
from helpers.training.model import Model, load_model

FOLDER = repository_folder() / "build" / "bench"
WORD = "<grooty>"
INITIALIZER = "toy"
SAMPLES = 64
_SEED = 20_000  # of the comparing loss: no run has it


def make_concept(name: str, placeholder_token: str = WORD, **training) -> Concept:
    """The grooty pictures under a name of their own, with our default settings but for `training`.

    No samples are drawn while training: the other loops draw none.
    """
    concept = Concept.make(
        name,
        placeholder_token=placeholder_token,
        initializer_token=INITIALIZER,
        vectors=1,
        training={"sample_every": 0, **training},
    )
    shutil.rmtree(concept.folder, ignore_errors=True)
    concept.save()
    shutil.copytree(data_folder() / "grooty", concept.images_folder)
    return concept


def our_model(concept: Concept) -> Model:
    return load_model(concept, torch.device("cpu"))


def their_parts():
    """The base model as a script loads it: float32, in torch's usual memory format."""
    return load_components(MINIATURE)


class SharedLoss:
    """The fixed loss by which runs are compared: other noise than any run's own, and more of it.

    It takes all the templates, and the latents' means of the pictures and their mirror images.
    """

    def __init__(self, concept: Concept):
        self.concept, model = concept, our_model(concept)
        self.latents = LatentCache(TextualInversionDataset(concept, [], model.resolution), model).means()

    def __call__(self, model: Model) -> float:
        """The loss of a model that has the word."""
        sentences = with_word(self.concept, self.concept.templates)
        ids = token_ids(model.components.tokenizers, sentences)
        return FixedLoss(self.latents, ids, self.concept.training, _SEED, SAMPLES)(model)


def rows_path(run: str, look: int | str) -> Path:
    """Where the rows of a run lie: as they were at a step, or its `result`."""
    name = look if isinstance(look, str) else f"{look:05d}"
    return FOLDER / "rows" / run / f"{name}.safetensors"
