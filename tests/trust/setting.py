"""A concept whose run takes a second: the pictures of the series on a tiny model of random weights."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.dataset.images import add_images, default_sources
from tests.families import make_family

STEPS = 6


@contextmanager
def a_root() -> Iterator[Path]:
    """A root of concepts of its own, with the tiny model beside it; both go at the end."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[places.ROOT_VARIABLE] = f"{folder}/concepts"
        yield make_family("sd1", Path(folder) / "model")


def make_concept(name: str, model: Path, **training) -> Concept:
    """Save a concept with the pictures of the series in it."""
    quick = {"resolution": 64, "sample_every": 0, "mixed_precision": "no", "max_train_steps": STEPS}
    concept = Concept.make(
        name, base_model=str(model), initializer_token="toy", training={**quick, **training}
    )
    concept.save()
    add_images(concept, default_sources("miniature"), "miniature")
    return concept
