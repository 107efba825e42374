"""The slider that turns a word back towards the class word."""

import shutil

import pytest
import torch

from helpers.concept.concept import Concept
from helpers.concept.embedding import load_rows, read_rows
from helpers.inference import pipeline_with_word
from helpers.widgets import TurnForm


@pytest.fixture
def form(concepts, learned_once):
    shutil.copytree(learned_once, concepts / "grooty")
    concept = Concept.load("grooty")
    return concept, TurnForm(pipeline_with_word(concept), concept, 4, ["a photo of a {}"], steps=1)


def press(form, name):
    getattr(form, name).click()
    return form.message.value


def test_the_turned_word_is_drawn_and_kept_and_0_brings_the_learned_one_back(form):
    concept, form = form
    learned = read_rows(concept, 4)
    assert "turned by 0.2." in form.message.value and "<img" in form.static_html(), "before any click"
    form.fraction.value = 1.0
    assert "turned by 1." in press(form, "draw") and len(form.sheet.pictures) == 2
    first = form.static_html()
    assert "turned by 1." in press(form, "draw") and form.static_html() == first, "drawn again, the same"
    assert "turned by 1." in press(form, "keep")
    assert torch.allclose(load_rows(concept.embeds_path)[0], read_rows(concept, 0)[0], atol=1e-5)
    form.fraction.value = 0.0
    assert "as learned" in press(form, "keep")
    assert torch.equal(load_rows(concept.embeds_path)[0], learned[0])


def test_a_step_that_was_not_kept_gets_a_sentence(form):
    concept, form = form
    other = TurnForm(form._pipeline, concept, 3, ["a photo of a {}"], steps=1)
    assert (
        "alert" in other.message.value and "was not kept" in other.message.value and not other.static_html()
    )
