"""The form that does notebooks 1 to 5."""

import json

import pytest

from helpers.common.errors import UserError
from helpers.common.files import locked
from helpers.concept.concept import Concept
from helpers.concept.overview import open_concept
from helpers.miniature import draw_words
from helpers.training.records import stop_requested
from helpers.training.train import as_concept
from helpers.widgets import LiveTraining, QuickStart, quick_start


def score(concept, pictures):
    """In place of the judge, which takes a minute."""
    assert pictures == 64, "of a balanced start"
    (concept.folder / "scores.json").write_text(json.dumps({"identity": 0.5, "prompt": 0.75}))


@pytest.fixture
def form(concepts, monkeypatch):
    monkeypatch.setattr(quick_start, "PRESETS", {"quick look": 2, "balanced": 4, "best": 6})
    form = QuickStart(draw_words, score)
    form.fields["concept"].value = "mine"
    return form


def begin(form):
    form.run.start.click()
    form.run.thread.join()


def test_one_button_leads_from_words_to_a_grid_and_scores_also_after_a_stop(form):
    assert "not known before the first run" in form.preset.options[0][0]
    form.fields["toy"].value = "teal star toy, bunny ears, one eye, wheels"
    form.run.start.click()
    form.run.stop.click()
    form.run.thread.join()
    assert "Begin goes on" in form.message.value
    form.run.start.click()
    form.preset.value, form.fields["what it is"].value = "best", "cat"  # too late for this time
    form.run.thread.join()
    assert "&lt;mine&gt; is learned." in form.message.value and "identity 0.50" in form.message.value
    concept = Concept.load("mine")
    assert concept.training.max_train_steps == 4 and concept.initializer_token == "toy"
    assert concept.embeds_path.is_file()
    assert (concept.grids_folder / "before_and_after.png").is_file()
    assert "<img" in form.grid.value and "4 steps" in form.preset.options[1][0]
    assert open_concept().name == "mine", "any notebook carries on"
    assert not form.run.start.disabled and form.run.stop.disabled


def test_nothing_of_a_concept_is_changed_while_another_notebook_trains_it(form):
    mine = Concept.make("mine")
    with locked(mine.lock_path, "{}"):
        form.fields["toy"].value = "red cone toy"
        begin(form)
    assert "is being learned now" in form.message.value
    assert not mine.images_folder.exists() and not (mine.folder / "concept.json").exists()


def test_settings_that_another_notebook_saves_meanwhile_stay(form, monkeypatch):
    def train(concept):
        as_concept(concept)
        raise UserError("enough")

    def describe(_):
        Concept.open("mine", training={"seed": 7}).save()

    monkeypatch.setattr(quick_start, "describe_pictures", describe)
    monkeypatch.setattr(quick_start, "train", train)
    form.fields["toy"].value = "red cone toy"
    begin(form)
    assert "enough" in form.message.value and Concept.load("mine").training.seed == 7


def test_stop_is_heard_while_the_view_of_the_training_is_made(form, monkeypatch):
    class Slow(LiveTraining):
        def __init__(self, concept):
            form.run.stop.click()
            super().__init__(concept)

    monkeypatch.setattr(quick_start, "LiveTraining", Slow)
    monkeypatch.setattr(quick_start, "describe_pictures", lambda concept: None)
    form.fields["toy"].value = "red cone toy"
    begin(form)
    assert "Begin goes on" in form.message.value and not Concept.load("mine").training_folder.exists()


def test_stop_reaches_the_training_that_is_shown_though_another_name_is_typed(form):
    mine = Concept.make("mine")
    form.live.children = [LiveTraining(mine)]
    form.fields["concept"].value = "another"
    form.run.stop.click()
    assert stop_requested(mine.training_folder) and not Concept.make("another").folder.exists()
    form.live.children[0].close()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("concept", "my cat", "letters, digits"),
        ("toy", "dragon", "not a trait"),
        ("pictures", "nowhere/", "nowhere/: No file or folder has this name"),
        ("what it is", "cat", "has no pictures yet"),
    ],
)
def test_what_cannot_be_used_gets_its_sentence(form, field, value, words):
    form.fields[field].value = value
    begin(form)
    assert "role='alert'" in form.message.value and not form.run.start.disabled
    assert words in form.message.value
