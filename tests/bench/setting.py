"""What all contenders share: the five pictures and the model."""

import shutil

import torch

from helpers.common.places import data_folder, repository_folder
from helpers.concept.concept import Concept
from helpers.model.base_model import MINIATURE, load_components
from helpers.training.model import Model, load_model

FOLDER = repository_folder() / "build" / "bench"
WORD = "<grooty>"
INITIALIZER = "toy"


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
