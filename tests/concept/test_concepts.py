"""All concepts at a glance, renaming them, and the trash: functions, and the gallery that calls them."""

import json
import os
import shutil
import time

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file

from helpers.common.errors import UserError
from helpers.concept import manage as renaming
from helpers.concept.concept import Concept
from helpers.concept.embedding import load_rows, read_rows, save_result, save_rows, step_path
from helpers.concept.manage import delete_concept, empty_trash, in_trash, rename_concept, restore_concept
from helpers.concept.overview import all_concepts, concept_sheet, concept_table, open_concept, overview
from helpers.export.files import PROGRAMS, export_for
from helpers.inference.pipeline import generate, pipeline_with_word, remake
from helpers.inference.png import Picture, PictureSettings, read_settings, save_picture
from helpers.training.control import request_stop, state_of
from helpers.training.records import (
    Log,
    RunSummary,
    finished,
    inputs_changed,
    read_log,
    run_inputs,
    save_inputs,
)
from helpers.training.train import train
from helpers.widgets.concept_gallery import ConceptGallery


@pytest.fixture
def learned(grooty):
    """The concept with a word, as a training, notebook 5, the scores and notebook 6 leave it."""
    rows = [torch.randn(grooty.vectors, 128)]
    save_result(grooty, rows)
    save_rows(step_path(grooty, 4), grooty, rows)
    save_inputs(grooty, run_inputs(grooty))
    RunSummary("grooty", "ceiling", "It reached max_train_steps.", 4, 4, 1.0, 0.08, 0.07).save(
        grooty.training_folder
    )
    draw(grooty, "a photo of a <grooty> on a beach", "red")
    (grooty.folder / "scores.json").write_text(
        json.dumps({"identity": 0.67, "prompt": 1.0, "said": {"word": "<grooty>", "initializer": "toy"}})
    )
    for program in PROGRAMS:
        export_for(grooty, program, half=program == "forge")
    return grooty


def draw(concept, prompt, colour):
    settings = PictureSettings(
        prompt=prompt,
        negative_prompt="",
        seed=7,
        steps=2,
        guidance=4,
        scheduler="DDIM",
        size=64,
        base_model="miniature",
        concept=concept.name,
        training_step=None,
        rows="0",
        batch_size=1,
        position=0,
    )
    return save_picture(
        Picture(Image.new("RGB", (64, 64), colour), settings), concept.grids_folder / "single"
    )


def press(card, name):
    """Press a button of a card or of what has opened below it, by the word on it."""
    (button,) = [one for one in buttons(card) if one.description == name]
    button.click()


def buttons(widget):
    found = [widget] if hasattr(widget, "click") else []
    return found + [one for child in getattr(widget, "children", ()) for one in buttons(child)]


def card(gallery, name):
    (found,) = [one for one in gallery.cards.children if one.name.value == name]
    return found


def test_each_state_is_told_and_leads_to_its_notebook(learned, concepts):
    Concept.make("settled").save()
    bare = Concept.make("bare")
    shutil.copytree(learned.images_folder, bare.images_folder)
    found = {one.name: (one.state, one.next_notebook) for one in all_concepts()}
    assert found == {
        "bare": ("only pictures", "2_concept_settings"),
        "grooty": ("learned", "5_inference_grids"),
        "settled": ("settings", "1_download_images"),
    }
    shown = repr(concept_table())
    assert "grooty | learned, 5 picture(s) | <grooty> | miniature | identity 0.67, prompt 1.00" in shown
    html = concept_table()._repr_html_()
    assert html.count("<img") == html.count('alt="') == 2 and "&lt;grooty&gt;" in html


def test_a_new_name_begins_with_notebook_1(concepts):
    opened = open_concept("robo")
    assert opened.notebook == "1_download_images" and opened.line == 'CONCEPT = "robo"'
    with pytest.raises(UserError, match="letters"):
        open_concept("../robo")


def test_the_picture_is_the_newest_that_was_drawn_with_the_word(learned):
    older = draw(learned, "a photo of a <grooty> in a forest", "blue")
    os.utime(older, (1, 1))
    draw(learned, "a photo of a toy", "green")
    cover = overview("grooty").cover
    assert cover.image.getpixel((3, 3)) == (255, 0, 0) and "on a beach" in cover.alt
    shutil.rmtree(learned.grids_folder)
    samples = learned.training_folder / "samples"
    samples.mkdir()
    Image.new("RGB", (4 * 64 + 3 * 4, 64), "purple").save(samples / "00004.png")
    assert "step 00004" in overview("grooty").cover.alt
    assert overview("grooty").cover.image.size == (64, 64)
    shutil.rmtree(samples)
    assert "001" in overview("grooty").cover.alt or "grooty-1.png" in overview("grooty").cover.alt


def test_an_empty_root_says_where_to_begin(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTS_ROOT", str(tmp_path / "none"))
    for shown in (concept_table(), concept_sheet()):
        assert "run notebook 1 first" in repr(shown) and "run notebook 1 first" in shown._repr_html_()
    gallery = ConceptGallery()
    assert "run notebook 1 first" in gallery.message.value and not gallery.cards.children
    assert "image/png" not in gallery._repr_mimebundle_()


@pytest.mark.parametrize("content", [b'{"name": "gr', b"\xff\xfe\x00", b'{"name": "broken"}', b"[]"])
def test_a_damaged_file_is_one_sentence_and_the_others_are_shown(learned, concepts, content):
    path = Concept.make("broken").save()
    path.write_bytes(content)
    found = {one.name: one for one in all_concepts()}
    assert found["broken"].state == "damaged" and found["grooty"].state == "learned"
    assert found["broken"].problem and "\n" not in found["broken"].problem
    gallery = ConceptGallery()
    assert (
        card(gallery, "broken").rename_button.disabled and not card(gallery, "grooty").rename_button.disabled
    )
    with pytest.raises(UserError):
        rename_concept("broken", "mended")
    assert path.read_bytes() == content
    delete_concept("broken", sure=True)
    assert [one.name for one in all_concepts()] == ["grooty"]


def test_a_learned_word_stays_learned_under_its_new_name(learned):
    rows = read_rows(learned)
    assert "its word <robo>" in rename_concept("grooty", "robo")
    assert not learned.folder.exists()
    robo = Concept.load("robo")
    assert (robo.name, robo.placeholder_token) == ("robo", "<robo>")
    for path in (robo.embeds_path, step_path(robo, 4)):
        assert list(load_file(path)) == ["<robo>"] and torch.equal(load_rows(path)[0], rows[0])
    assert list(torch.load(robo.embeds_path.with_suffix(".bin"), weights_only=True)) == ["<robo>"]
    assert json.loads((robo.folder / "scores.json").read_text())["said"]["word"] == "<robo>"
    assert (
        RunSummary.load(robo).concept == "robo"
        and finished(robo)
        and not inputs_changed(robo, run_inputs(robo))
    )


def test_each_programs_file_has_the_new_name(learned):
    rename_concept("grooty", "robo")
    robo = Concept.load("robo")
    files = sorted(
        path.relative_to(robo.export_folder).as_posix() for path in robo.export_folder.rglob("*.*")
    )
    assert files == sorted(f"{program}/robo.safetensors" for program in PROGRAMS)
    kept = load_file(robo.export_folder / "forge" / "robo.safetensors")["emb_params"]
    assert kept.dtype == torch.float16
    assert list(load_file(robo.export_folder / "diffusers" / "robo.safetensors")) == ["<robo>"]


def test_a_saved_picture_speaks_of_the_new_name(learned):
    (path,) = learned.grids_folder.rglob("*.png")
    before = path.stat().st_mtime
    rename_concept("grooty", "robo")
    (path,) = Concept.load("robo").grids_folder.rglob("*.png")
    settings = read_settings(path)
    assert settings.concept == "robo" and settings.prompt == "a photo of a <robo> on a beach"
    assert path.stat().st_mtime == before and Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    assert "robo" in path.name and Image.open(path).text["parameters"].startswith(settings.prompt)


def test_a_sheet_is_drawn_with_the_new_word(learned):
    path, texts = learned.grids_folder / "sheet.png", PngImagePlugin.PngInfo()
    axis = {"kind": "word", "values": ["toy", "<grooty>"]}
    plan = {"concept": "grooty", "word": "<grooty>", "prompt": "a photo of a {}", "x": axis}
    texts.add_text("grid", json.dumps(plan))
    Image.new("RGB", (8, 8), "red").save(path, pnginfo=texts)
    rename_concept("grooty", "robo")
    with Image.open(Concept.load("robo").grids_folder / "sheet.png") as sheet:
        renamed = json.loads(sheet.info["grid"])
    assert (renamed["concept"], renamed["word"]) == ("robo", "<robo>")
    assert renamed["prompt"] == plan["prompt"] and renamed["x"]["values"] == ["toy", "<robo>"]


def test_a_picture_can_be_made_again_after_renaming(learned):
    shutil.rmtree(learned.grids_folder)
    picture = generate(pipeline_with_word(learned), "a photo of a <grooty>", steps=2)[0]
    save_picture(picture, learned.grids_folder / "single")
    rename_concept("grooty", "robo", "<my-toy>")
    (path,) = Concept.load("robo").grids_folder.rglob("*.png")
    assert read_settings(path).prompt == "a photo of a <my-toy>"
    assert remake(path).image.tobytes() == picture.image.tobytes()


def test_a_stopped_run_goes_on_after_renaming(grooty, families):
    concept = grooty.changed(base_model=str(families["sd1"]), training={"resolution": 64, "sample_every": 0})

    def scorer(concept, model):
        if len(read_log(concept.training_folder)) > 3:
            request_stop(concept.training_folder)
        return 1.0

    stopped_at = train(concept, scorer=scorer).steps
    rename_concept("grooty", "robo")
    robo = Concept.load("robo")
    assert state_of(robo, read_log(robo.training_folder)) == "stopped"
    outcome = train(robo, scorer=lambda concept, model: 1.0)
    assert stopped_at < outcome.steps == 4 and outcome.concept == "robo"
    assert any("Goes on from" in line.get("event", "") for line in read_log(robo.training_folder))
    assert not (robo.folder / "training-1").exists()


def test_a_word_of_ones_own_stays_unless_it_is_told_otherwise(learned):
    rename_concept("grooty", "grooty", "<sks>")
    assert Concept.load("grooty").placeholder_token == "<sks>"
    rename_concept("grooty", "robo")
    assert Concept.load("robo").placeholder_token == "<sks>"


def test_own_sentences_lose_the_word_they_name(learned):
    (learned.images_folder / "grooty-1.txt").write_text("a <grooty> on a table\n")
    rename_concept("grooty", "robo")
    caption = Concept.load("robo").images_folder / "grooty-1.txt"
    assert caption.read_text() == "a {} on a table\n"


@pytest.mark.parametrize(
    ("new_name", "word", "sentence"),
    [
        ("settled", None, "There is “settled” already"),
        ("../robo", None, "letters"),
        ("robo", "toy", "toy"),
        ("robo", "two words", "one word"),
    ],
)
def test_a_name_that_cannot_be_used_changes_nothing(learned, new_name, word, sentence):
    Concept.make("settled").save()
    files = {path: path.read_bytes() for path in learned.folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=sentence):
        rename_concept("grooty", new_name, word)
    assert files == {path: path.read_bytes() for path in learned.folder.rglob("*") if path.is_file()}


def test_a_folder_whose_name_is_no_name_can_be_given_one(learned, concepts):
    learned.folder.rename(concepts / "my grooty")
    assert overview("my grooty").state == "damaged"
    assert delete_concept("my grooty").startswith("Delete my grooty")


def test_a_rename_that_breaks_off_leaves_the_word(learned, monkeypatch):
    rows = read_rows(learned)

    def full(*given):
        raise OSError("no space left")

    monkeypatch.setattr(renaming, "save_result", full)
    with pytest.raises(OSError):
        rename_concept("grooty", "robo")
    assert overview("robo").state == "learned" and torch.equal(read_rows(Concept.load("robo"))[0], rows[0])


def test_a_run_at_work_keeps_its_folder(grooty):
    save_inputs(grooty, run_inputs(grooty))
    log = Log(grooty.training_folder, 0)
    log.write(1, loss=0.1)
    log.close()
    for change in (lambda: rename_concept("grooty", "robo"), lambda: delete_concept("grooty", sure=True)):
        with pytest.raises(UserError, match="being learned now"):
            change()
    long_ago = time.time() - 3600
    for path in grooty.training_folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    rename_concept("grooty", "robo")
    assert [one.name for one in all_concepts()] == ["robo"]


def test_deleting_asks_and_can_be_undone(learned):
    files = {path.relative_to(learned.folder): path.read_bytes() for path in learned.folder.rglob("*.*")}
    asked = delete_concept("grooty")
    assert "5 picture(s) and the learned word <grooty>" in asked and learned.folder.is_dir()
    delete_concept("grooty", sure=True)
    assert not all_concepts() and not learned.folder.exists()
    restore_concept("grooty")
    assert files == {
        path.relative_to(learned.folder): path.read_bytes() for path in learned.folder.rglob("*.*")
    }
    assert not in_trash()


def test_the_trash_keeps_two_of_one_name_and_erases_only_when_sure(grooty):
    delete_concept("grooty", sure=True)
    Concept.make("grooty", initializer_token="cat").save()
    delete_concept("grooty", sure=True)
    assert "Erase grooty, grooty" in empty_trash() and len(in_trash()) == 2
    restore_concept("grooty")
    assert Concept.load("grooty").initializer_token == "cat"
    with pytest.raises(UserError, match="another concept “grooty” now"):
        restore_concept("grooty")
    with pytest.raises(UserError, match="choose one of these: grooty"):
        restore_concept("robo")
    assert "Erased: grooty" in empty_trash(sure=True) and not in_trash()
    assert empty_trash() == "The trash is empty."


def test_the_buttons_rename_with_the_word_following_the_name(learned):
    gallery = ConceptGallery()
    press(card(gallery, "grooty"), "Rename")
    shown = card(gallery, "grooty")
    shown.name.value = "two words"
    assert shown.word.value == "<two words>"
    press(shown, "Rename it")
    assert "letters" in gallery.message.value and shown.panel.children, "what was typed must stay"
    shown.name.value = "robo"
    assert shown.word.value == "<robo>"
    press(shown, "Rename it")
    assert Concept.load("robo").placeholder_token == "<robo>"
    assert "robo now" in gallery.message.value and len(gallery.cards.children) == 1
    press(card(gallery, "robo"), "Open")
    (output,) = card(gallery, "robo").panel.children[0].outputs
    assert 'href="5_inference_grids.ipynb"' in output["data"]["text/html"]


def test_the_buttons_delete_after_a_question_and_bring_back(learned):
    gallery = ConceptGallery()
    press(card(gallery, "grooty"), "Delete")
    asked = card(gallery, "grooty").panel.children[0].value
    assert "Delete grooty, 5 picture(s) and the learned word &lt;grooty&gt;" in asked
    press(card(gallery, "grooty"), "Cancel")
    assert learned.folder.is_dir() and not card(gallery, "grooty").panel.children
    press(card(gallery, "grooty"), "Delete")
    press(card(gallery, "grooty"), "Delete it")
    assert not gallery.cards.children and not learned.folder.exists()
    press(gallery.trash, "Bring back grooty")
    assert learned.folder.is_dir() and len(gallery.cards.children) == 1
    press(card(gallery, "grooty"), "Delete")
    press(card(gallery, "grooty"), "Delete it")
    press(gallery.trash, "Empty the trash")
    assert "for good" in gallery.trash.children[0].value and in_trash()
    press(gallery.trash, "Erase for good")
    assert not in_trash() and not gallery.trash.children


def test_without_a_kernel_there_are_a_table_and_a_picture(learned):
    bundle = ConceptGallery()._repr_mimebundle_()
    assert "grooty" in bundle["text/html"] and bundle["image/png"]
    assert "drawn with the word: a photo of a <grooty>" in concept_sheet().alt


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vectors": "2x"}, "vectors: give a whole number (you gave '2x')."),
        ({"vectors": 0}, "vectors: give 1 or more (you gave 0)."),
        ({"what_to_teach": "thing"}, "what_to_teach: choose 'object' or 'style' (you gave 'thing')."),
        ({"training": {"resolution": 65}}, "resolution: give a multiple of 8 (you gave 65)."),
        ({"training": {"sped": 1}}, "sped: there is no such setting (you gave 1)."),
    ],
)
def test_a_setting_that_can_not_be_used_is_answered_with_what_would_do(settings, sentence):
    with pytest.raises(UserError) as answer:
        Concept.make("grooty", **settings)
    assert str(answer.value) == sentence
