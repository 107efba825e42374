"""Captions by the base model itself: what it sees around a thing, and on it."""

import os
import shutil
from dataclasses import replace

import pytest

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.templates import MINIATURE_PLACES, MINIATURE_THINGS_ON, NEUTRAL_TEMPLATES
from helpers.dataset.dataset import Preview, TextualInversionDataset, held_out_templates, training_templates
from helpers.dataset.images import captions_of, image_paths, write_captions
from helpers.miniature.drawing import example_drawings, render
from helpers.miniature.world import ACCESSORIES, ACCESSORY_PHRASES, PLACE_PHRASES, SCENES
from helpers.training import describe
from helpers.training.describe import Seen, describe_pictures
from helpers.training.processes import in_own_process

FIRST = "grooty-1.png"
OWN = "a {} that I typed"


@pytest.fixture(scope="module")
def described_once(tmp_path_factory):
    """The five pictures of grooty, the second with a scarf on and the first with a caption of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONCEPTS_ROOT", str(tmp_path_factory.mktemp("described")))
        concept = Concept.make("grooty", initializer_token="toy")
        concept.save()
        concept.images_folder.mkdir()
        for number, drawing in enumerate(drawings(), start=1):
            render(drawing, 256).save(concept.images_folder / f"grooty-{number}.png")
        write_captions(concept, FIRST, OWN)
        return concept.folder, describe_pictures(concept)


def drawings():
    first, second, *others = example_drawings()
    return [first, replace(second, accessory="scarf"), *others]


@pytest.fixture
def described(concepts, described_once):
    shutil.copytree(described_once[0], concepts / "grooty")
    return Concept.load("grooty")


def test_the_right_places_and_things_are_seen(described_once):
    seen = [(one.place, one.thing_on) for one in described_once[1]]
    assert seen == [(PLACE_PHRASES[d.scene], ACCESSORY_PHRASES[d.accessory]) for d in drawings()[1:]]


def test_a_picture_with_captions_is_left_and_a_second_time_nothing_is_asked(described, capsys):
    assert captions_of(described)[FIRST] == [OWN]
    assert describe_pictures("grooty") == []
    assert "Each picture has captions already" in capsys.readouterr().out


def test_what_is_seen_is_said_in_sentences_that_judge_nothing(described):
    said = captions_of(described)["grooty-2.png"]
    assert said == [f"{template} wearing a scarf in a room" for template in NEUTRAL_TEMPLATES]
    assert set(NEUTRAL_TEMPLATES) <= set(training_templates(described))
    assert not set(NEUTRAL_TEMPLATES) & set(held_out_templates(described))


def test_the_data_set_and_the_preview_take_them_and_one_that_was_edited(described):
    write_captions(described, "grooty-3.png", "a {} on my desk")
    preview = Preview(described)
    assert preview.sentences("grooty-3.png") == ("a {} on my desk",)
    assert "wearing a scarf in a room" in preview.sentences("grooty-2.png")[0]
    dataset = TextualInversionDataset(described, [], 128)
    said = [dataset.templates[dataset.draw(number)[1]] for number in range(50)]
    assert "a {} on my desk" in said and OWN in said and "a photo of a {} in a forest" in said
    assert not set(said) & (set(training_templates(described)) - set(NEUTRAL_TEMPLATES))


def test_a_deleted_caption_is_written_again(described):
    name = image_paths(described)[-1].name
    for path in image_paths(described)[:-1]:
        write_captions(described, path.name, OWN)
    write_captions(described, name, "")
    [seen] = describe_pictures(described)
    assert seen.picture == name and captions_of(described)[name] == seen.captions


def test_what_a_person_has_written_meanwhile_stays(described, monkeypatch):
    def slow(captioner, name):
        write_captions(described, name, OWN)
        return Seen(name, "on a beach", "")

    write_captions(described, "grooty-2.png", "")
    monkeypatch.setattr(describe.Captioner, "__call__", slow)
    describe_pictures(described)
    assert captions_of(described)["grooty-2.png"] == [OWN]


def test_a_style_is_not_described(grooty, capsys):
    assert describe_pictures(grooty.changed(what_to_teach="style")) == []
    assert "style" in capsys.readouterr().out and captions_of(grooty) == {}


def test_the_phrases_are_those_that_the_miniature_was_taught():
    assert set(MINIATURE_PLACES) == {PLACE_PHRASES[scene] for scene in SCENES}
    assert {"", *MINIATURE_THINGS_ON} == {ACCESSORY_PHRASES[accessory] for accessory in ACCESSORIES}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_family_is_asked_in_words_of_its_own(grooty, families, family, monkeypatch):
    monkeypatch.setattr(describe, "PLACES", ("on a beach",))
    monkeypatch.setattr(describe, "THINGS_ON", ("wearing a hat",))
    small = {"resolution": 64, "mixed_precision": "no"}
    seen = describe_pictures(grooty.changed(base_model=str(families[family]), training=small))
    assert len(seen) == 5
    assert {one.place for one in seen} <= {"", "on a beach"}
    assert {one.thing_on for one in seen} <= {"", "wearing a hat"}


def test_in_a_process_of_its_own_it_says_and_hands_back_the_same(described, described_once, capsys):
    write_captions(described, "grooty-2.png", "")
    assert in_own_process(describe_pictures, "grooty") == [described_once[1][0]]
    assert "grooty-2.png: wearing a scarf in a room" in capsys.readouterr().out
    assert captions_of(described)["grooty-2.png"] == described_once[1][0].captions


def test_an_error_there_is_a_sentence_here_and_so_is_its_death(concepts):
    with pytest.raises(UserError, match="nobody"):
        in_own_process(describe_pictures, "nobody")
    with pytest.raises(UserError, match="memory was full"):
        in_own_process(os._exit, 9)
