"""Fixtures that every test may use. No test writes into the repository or asks a hub."""

import gc
import os
import shutil

# Before torch, the hub's client and matplotlib are imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# One thread a worker: with two each they wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import pytest

from helpers.common import places
from helpers.concept.concept import Concept, TrainingSettings

# What takes a minute or more begins first, so that no worker is left alone with it.
LONGEST = (
    "test_training_watched",
    "test_training",
    "test_notebooks",
    "test_all_in_one",
    "test_widgets",
    "test_first_page",
    "test_drawing",
    "test_training_together",
    "test_training_to_the_bit",
    "test_miniature_build",
    "test_training_live",
)


def pytest_collection_modifyitems(items):
    """`make test` deals out files: the longest first."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish():
    """What was imported is looked at by no garbage collection: each training ends with one."""
    gc.collect()
    gc.freeze()


SHORT = {
    "max_train_steps": 4,
    "evaluate_every": 2,
    "sample_every": 2,
    "checkpoint_every": 2,
    "lr_warmup_steps": 1,
}


def put_pictures(concept):
    """Give a concept the five pictures of the concept of the series."""
    shutil.copytree(places.data_folder() / "grooty", concept.images_folder)


@pytest.fixture
def concepts(tmp_path, monkeypatch):
    """An empty root of concepts, in a temporary folder."""
    root = tmp_path / "concepts"
    root.mkdir()
    monkeypatch.setenv(places.ROOT_VARIABLE, str(root))
    return root


@pytest.fixture
def short():
    """Settings for a training of seconds: every part of it happens, nothing is learned."""
    return TrainingSettings(**SHORT)


@pytest.fixture
def grooty(concepts, short):
    """The concept of the series with its five pictures, saved under `concepts`, not trained."""
    concept = Concept.make("grooty", initializer_token="toy", training=short)
    concept.save()
    put_pictures(concept)
    return concept


@pytest.fixture
def double_click():
    """Clicks a button twice as a page does: the second click is sent before the first one is answered."""
    from comm import get_comm_manager

    def click_twice(button):
        content = {"comm_id": button.model_id, "data": {"method": "custom", "content": {"event": "click"}}}
        for _ in range(2):
            get_comm_manager().comm_msg(None, None, {"content": content, "buffers": []})

    return click_twice


@pytest.fixture(scope="session")
def learned_once(tmp_path_factory):
    """The folder of the concept of the series after a training of four steps: to be copied, not changed."""
    from helpers.training.train import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.ROOT_VARIABLE, str(tmp_path_factory.mktemp("learned")))
        concept = Concept.make("grooty", initializer_token="toy", training={**SHORT, "sample_every": 0})
        concept.save()
        put_pictures(concept)
        train(concept)
        return concept.folder


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Folders of tiny random models in the layout of Stable Diffusion 1.5, 2.1 and XL, by family."""
    from families import FAMILIES, make_family

    root = tmp_path_factory.mktemp("families")
    return {family: make_family(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """A concept whose word means `red toy`, green at step 10, red again at step 20; and its pipeline."""
    from known_words import known_rows

    from helpers.concept.embedding import save_result, save_rows, step_path
    from helpers.inference.pipeline import pipeline_with_word

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONCEPTS_ROOT", str(tmp_path_factory.mktemp("concepts")))
        concept = Concept.make("grooty", vectors=2)
        concept.save()
        rows = known_rows("miniature", "red toy")
        save_result(concept, rows)
        save_rows(step_path(concept, 10), concept, known_rows("miniature", "green toy"))
        save_rows(step_path(concept, 20), concept, rows)
        yield concept, pipeline_with_word("grooty")
