"""The form changes the concept that it shows, and nothing that can't be used gets in."""

import errno
import json
import os
from pathlib import Path

import pytest

from helpers.concept.concept import Concept, TrainingSettings, setting_groups, setting_help, settings_where
from helpers.concept.manage import rename_concept
from helpers.training.forecast import note_circumstances
from helpers.training.records import Log
from helpers.widgets.settings_form import FIRST, SettingsForm, WordPanel


@pytest.fixture
def concept(concepts):
    return Concept.make("grooty")


def widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


def field(form, name):
    return next(widget for widget in widgets(form) if getattr(widget, "description", "") == name)


def hint(form, name):
    """What stands beside a field."""
    return next(
        row.children[1].value
        for row in widgets(form)
        if getattr(row, "children", ()) and getattr(row.children[0], "description", "") == name
    )


def message(form):
    return form.children[-1].value


def test_every_setting_has_a_field():
    training = [name for names in setting_groups().values() for name in names]
    assert sorted(training) == sorted(TrainingSettings.model_fields)
    assert {*FIRST} == {*Concept.model_fields} - {"name", "training", "earlier_words", "learned_elsewhere"}
    assert all(map(setting_help, [*training, *FIRST]))


def test_a_setting_says_what_depends_on_it():
    assert settings_where(memory=True) == (
        *("resolution", "random_crop", "train_batch_size"),
        *("timesteps_per_picture", "gradient_checkpointing", "quantize"),
    )
    assert {*settings_where(shared=True)} == {*settings_where(speed=True)} - {"random_crop"}
    assert "max_train_steps" in settings_where(may_change=True) and "seed" not in settings_where(
        may_change=True
    )
    assert settings_where(may_change=True, memory=True) == ("gradient_checkpointing",)


def test_a_change_goes_into_the_concept_and_save_keeps_it(concept):
    form = SettingsForm(concept)
    field(form, "learning_rate").value = "2e-3"
    field(form, "resolution").value = "128"
    field(form, "what_to_teach").value = "style"
    field(form, "own_templates").value = "my {} in the sink\n\nthe {}"
    field(form, "Save").click()
    saved = json.loads((concept.folder / "concept.json").read_text())
    assert saved["training"]["learning_rate"] == 2e-3
    assert saved["training"]["resolution"] == 128
    assert saved["what_to_teach"] == "style"
    assert saved["own_templates"] == ["my {} in the sink", "the {}"]


def test_an_empty_field_is_no_value(concept):
    form = SettingsForm(concept)
    field(form, "max_grad_norm").value = ""
    assert concept.training.max_grad_norm is None


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("learning_rate", "quick", "learning_rate"),
        ("vectors", "0", "vectors"),
        ("train_batch_size", "9" * 21, "give 10000 or less"),
        ("own_templates", "no word in it", "exactly one {}"),
        ("own_templates", "a {} on a mat\n" + "very " * 60 + "red {}", "the model reads only the first 46"),
        ("initializer_token", "xylophone", "start from one of these"),
        ("placeholder_token", "toy", "knows “toy” already"),
        ("base_model", "minature", "There is no base model at"),
    ],
)
def test_bad_input_gets_a_sentence_and_nothing_is_lost(concept, name, bad, sentence):
    form = SettingsForm(concept)
    before = concept.model_dump()
    field(form, name).value = bad
    assert sentence in message(form)
    assert concept.model_dump() == before
    assert field(form, name).value == bad
    assert sentence in hint(form, name), "marked at the field"


def test_a_mark_goes_when_the_value_is_good_again(concept):
    form = SettingsForm(concept)
    rate = field(form, "learning_rate")
    unmarked = hint(form, "learning_rate")
    for typed, is_marked in (("5", True), ("5e", True), ("5e-3", False)):
        rate.value = typed
        assert (hint(form, "learning_rate") != unmarked) == is_marked == bool(rate.layout.border_top)


@pytest.mark.parametrize(
    ("name", "typed", "old"),
    [
        ("initializer_token", "orange fluffy monster", "toy"),
        ("max_train_steps", "30o", "600"),
        ("placeholder_token", "<my toy>", "<grooty>"),
        ("own_templates", "my {} in the sink\nmy {", ""),
    ],
)
def test_no_half_of_a_value_is_taken_while_one_types(concept, name, typed, old):
    """A page sends what was typed when the field is left, and at Enter."""
    form = SettingsForm(concept)
    assert not field(form, name).continuous_update and field(form, name).value == old
    before = concept.model_dump()
    field(form, name).value = typed
    assert concept.model_dump() == before and field(form, name).layout.border_top


def test_nothing_is_saved_while_a_field_is_marked(concept):
    form = SettingsForm(concept)
    field(form, "max_train_steps").value = "300"
    field(form, "initializer_token").value = "orange fluffy monster"
    assert form.save.disabled
    form.save.click()  # what was on its way before the button was off
    assert "Nothing was saved" in message(form) and "initializer_token" in message(form)
    assert not (concept.folder / "concept.json").exists()
    field(form, "initializer_token").value = "monster"
    assert not form.save.disabled
    form.save.click()
    assert "Saved: grooty/concept.json." in message(form)
    saved = Concept.load("grooty")
    assert (saved.initializer_token, saved.training.max_train_steps) == ("monster", 300)


def test_a_full_disk_is_said(concept, monkeypatch):
    def refuse(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    form = SettingsForm(concept)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    field(form, "Save").click()
    assert "alert" in message(form) and "No space left on device" in message(form)


def test_save_keeps_what_another_notebook_has_saved_since(concept):
    concept.save()
    form = SettingsForm(concept)
    other = concept.changed(vectors=3, training={"seed": 7, "center_crop": False}, own_templates=["my {}"])
    other.changed(training={"max_train_steps": 50}, earlier_words=["<g>"]).save()
    field(form, "max_train_steps").value = "300"
    field(form, "Save").click()
    saved = Concept.load("grooty")
    assert saved == other.changed(training={"max_train_steps": 300}, earlier_words=["<g>"]) == concept
    assert "Changed elsewhere meanwhile: center_crop, seed, vectors, own_templates." in message(form)
    assert (field(form, "vectors").value, field(form, "seed").value) == ("3", "7")
    field(form, "vectors").value = "2"
    field(form, "Save").click()
    assert Concept.load("grooty").vectors == 2 and "meanwhile" not in message(form)


def test_what_another_notebook_has_saved_is_marked_if_it_does_not_go_with_this(concept):
    concept.save()
    form = SettingsForm(concept)
    concept.changed(initializer_token="red toy").save()
    field(form, "vectors").value = "1"
    field(form, "Save").click()
    assert "correct the marked fields first: initializer_token" in message(form)
    assert Concept.load("grooty").vectors == 2


def test_a_concept_that_was_renamed_since_is_not_made_anew(concept):
    concept.save()
    form = SettingsForm(concept)
    rename_concept("grooty", "robo")
    field(form, "Save").click()
    assert "no concept “grooty”" in message(form) and "robo" in message(form)
    assert not concept.folder.exists()


def test_a_value_that_was_wrong_beside_another_is_taken_once_that_one_is_mended(concept):
    form = SettingsForm(concept)
    field(form, "initializer_token").value = "red round toy"
    assert "set vectors to 3" in message(form) and form.save.disabled
    field(form, "vectors").value = "3"
    assert not form.save.disabled and not field(form, "initializer_token").layout.border_top
    assert (concept.initializer_token, concept.vectors) == ("red round toy", 3)


def words(form):
    return next(one.value for one in widgets(form) if isinstance(one, WordPanel))


def needs(form):
    return form.needs


def test_the_form_shows_what_the_tokenizer_makes_of_the_words(concept):
    form = SettingsForm(concept)
    field(form, "initializer_token").value = "brown"
    assert "brown <small>" in words(form) and "near “brown”" in words(form)


def test_also_a_word_that_is_refused_is_shown_in_its_tokens_with_words_that_would_do(concept):
    form = SettingsForm(concept)
    field(form, "initializer_token").value = "robttt"
    assert "ro <small>" in words(form) and "near “robttt”: robot" in words(form)
    field(form, "initializer_token").value = ""
    assert "near" not in words(form) and "INITIALIZER_TOKEN" in hint(form, "initializer_token")


def test_another_concept_s_word_is_pointed_out(concept):
    Concept.make("first", placeholder_token="<bob>").save()
    form = SettingsForm(concept)
    assert "alert" not in words(form)
    field(form, "placeholder_token").value = "<bob>"
    assert "“first” has the word &lt;bob&gt; as well" in words(form)
    assert concept.placeholder_token == "<bob>", "a hint, no refusal"


def test_the_memory_follows_the_settings(concept):
    form = SettingsForm(concept)
    before = needs(form).value
    assert "GiB" in before and "Time: not known" in before
    field(form, "train_batch_size").value = "64"
    assert needs(form).value != before
    field(form, "train_batch_size").value = "4"
    assert needs(form).value == before


def test_the_time_is_that_of_the_last_run_like_it_whatever_its_length(concept):
    form = SettingsForm(concept)
    assert "not known before the first such run" in needs(form).value
    write_run(concept, seconds_per_step=0.5)
    field(form, "max_train_steps").value = "200"
    assert "at most 1.7 minutes, 0.5 s a step" in needs(form).value
    field(form, "max_train_steps").value = "100"
    assert "at most 50 seconds" in needs(form).value
    field(form, "train_batch_size").value = "2"
    assert "not known" in needs(form).value, "another batch takes another time"


def write_run(concept, seconds_per_step):
    """The folder of a run of this concept, as it is made on this machine."""
    note_circumstances(concept)
    log = Log(concept.training_folder, 0)
    for step in (1, 2, 3):
        log.write(step, seconds=step * seconds_per_step)
    log.write(3, event="It reached max_train_steps.")
    log.close()


def test_a_page_without_a_kernel_shows_a_table(concept):
    assert ">&lt;grooty&gt;</td>" in SettingsForm(concept)._repr_mimebundle_()["text/html"]
