"""All concepts at a glance, renaming them, and the trash: functions, and the gallery that calls them."""

import json
import os
import re
import shutil

import pytest
import torch
from ipywidgets.widgets.widget import _instances
from known_words import SETTINGS, known_rows
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from helpers.common import places
from helpers.common.errors import UserError
from helpers.common.files import locked
from helpers.concept.concept import Concept, TrainingSettings, setting_help
from helpers.concept.embedding import hash_rows, load_rows, read_rows, save_result, save_rows, step_path
from helpers.concept.manage import delete_concept, empty_trash, in_trash, rename_concept, restore_concept
from helpers.concept.overview import (
    Overview,
    all_concepts,
    chosen_concept,
    concept_sheet,
    concept_table,
    open_concept,
)
from helpers.dataset.dataset import fill
from helpers.export.files import export_for
from helpers.export.formats import PROGRAMS
from helpers.inference.grid import redraw, xy_grid
from helpers.inference.pipeline import generate, pipeline_with_word, remake
from helpers.inference.png import Picture, read_settings, save_picture
from helpers.model.base_model import load_pipeline, load_tokenizers, save_pipeline
from helpers.model.tokens import check_words
from helpers.series.report import _scores, write_report
from helpers.training.records import (
    Log,
    RunSummary,
    finished,
    inputs_changed,
    read_log,
    request_stop,
    run_inputs,
    save_inputs,
    state_of,
)
from helpers.training.train import train
from helpers.widgets.concept_gallery import ConceptGallery

SCORES = {"identity": 0.67, "traits": {}, "prompt": 1.0, "asked": {}}
FORMER_NAMES = {"name": "grooty", "placeholder_token": "<grooty>"}  # as the version before wrote them


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
    said = {"word": "<grooty>", "initializer": "toy", "description": "an orange toy"}
    scores = {"identity": 0.67, "prompt": 1.0, "said": said, **dict.fromkeys(said, SCORES)}
    (grooty.folder / "scores.json").write_text(json.dumps(scores))
    for program in PROGRAMS:
        export_for(grooty, program, half=program == "forge")
    return grooty


def draw(concept, prompt, colour):
    drawn = {"prompt": prompt, "negative_prompt": "", "steps": 2, "batch_size": 1, "position": 0}
    settings = SETTINGS.model_copy(update={**drawn, "rows_hash": hash_rows(read_rows(concept))})
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
    (found,) = [one for one in gallery.cards.children if f"<b>{name}</b>" in one.children[0].value]
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
    assert "grooty | learned, 5 pictures | <grooty> | miniature | identity 0.67, prompt 1.00" in shown
    html = concept_table()._repr_html_()
    assert html.count("<img") == html.count('alt="') == 2 and "&lt;grooty&gt;" in html


def test_a_new_name_begins_with_notebook_1(concepts):
    opened = open_concept("robo")
    assert opened.notebook == "1_download_images" and "goes on with robo" in str(opened)
    with pytest.raises(UserError, match="letters"):
        open_concept("../robo")


def test_the_concept_that_was_opened_last_is_remembered(concepts, monkeypatch):
    assert chosen_concept() == "grooty", "what the series begins with, where there is nothing yet"
    for age, name in enumerate(("third", "second", "first")):
        path = Concept.make(name).save()
        os.utime(path, (age + 1, age + 1))
    assert chosen_concept() == "first", "the one that was changed last"
    assert open_concept("second").name == "second"
    assert chosen_concept() == "second"
    assert chosen_concept("mistyped") == "mistyped"
    assert chosen_concept() == "second", "a name without pictures or settings is not remembered"
    monkeypatch.setattr("time.time_ns", lambda: 5)
    open_concept("third")
    assert chosen_concept() == "third", "also when the clock was put back"
    open_concept("second")
    rename_concept("second", "renamed")
    assert chosen_concept() == "renamed"


def test_the_picture_is_the_newest_that_was_drawn_with_the_word(learned):
    older = draw(learned, "a photo of a <grooty> in a forest", "blue")
    os.utime(older, (1, 1))
    draw(learned, "a photo of a toy", "green")
    cover = Overview("grooty").cover
    assert cover.getpixel((3, 3)) == (255, 0, 0) and "on a beach" in cover.alt
    shutil.rmtree(learned.grids_folder)
    samples = learned.training_folder / "samples"
    samples.mkdir()
    Image.new("RGB", (4 * 64 + 3 * 4, 64), "purple").save(samples / "00004.png")
    assert "step 00004" in Overview("grooty").cover.alt
    assert Overview("grooty").cover.size == (64, 64)
    shutil.rmtree(samples)
    assert "001" in Overview("grooty").cover.alt or "grooty-1.png" in Overview("grooty").cover.alt
    draw(learned, "a photo of a <GROOTY> at night", "blue")
    assert "at night" in Overview("grooty").cover.alt


def test_an_empty_root_says_where_to_begin(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTS_ROOT", str(tmp_path / "none"))
    for shown in (concept_table(), concept_sheet()):
        assert "run notebook 1 first" in repr(shown) and "run notebook 1 first" in shown._repr_html_()
    gallery = ConceptGallery()
    assert "run notebook 1 first" in gallery.message.value and not gallery.cards.children
    assert "<img" not in gallery._repr_mimebundle_()["text/html"]


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
    assert "word: <robo>" in str(_scores(robo)) and "grooty" not in str(_scores(robo))
    assert RunSummary.load(robo).concept == "robo" and finished(robo)
    assert not inputs_changed(robo, run_inputs(robo))


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


def test_a_saved_picture_stays_as_it_is_and_its_word_is_known(learned):
    (path,) = learned.grids_folder.rglob("*.png")
    before, saved = path.stat().st_mtime, path.read_bytes()
    rename_concept("grooty", "robo")
    robo = Concept.load("robo")
    (path,) = robo.grids_folder.rglob("*.png")
    settings = read_settings(path)
    assert path.stat().st_mtime == before and path.read_bytes() == saved
    assert robo.with_present_word(settings.prompt) == "a photo of a <robo> on a beach"
    assert Overview("robo").cover.alt == "drawn with the word: a photo of a <robo> on a beach"


def test_a_sheet_is_drawn_with_the_new_word(grooty):
    save_result(grooty, known_rows("miniature", "red toy"))
    pipeline, axis = pipeline_with_word(grooty), ("word", ["toy", "<grooty>"])
    sheet = xy_grid(pipeline, axis, prompt="a {} and no (<grooty>:0.5)", steps=2, size=32)
    sheet.save(grooty)
    rename_concept("grooty", "robo")
    (path,) = Concept.load("robo").grids_folder.glob("*.png")
    again = redraw(path)
    assert again.plan.x.values == ("toy", "<robo>") and again.plan.word == "<robo>"
    assert again.plan.prompt == "a {} and no (<robo>:0.5)"
    assert [one.image.tobytes() for one in again.pictures] == [one.image.tobytes() for one in sheet.pictures]


def test_a_picture_can_be_made_again_after_renaming(learned):
    shutil.rmtree(learned.grids_folder)
    picture = generate(pipeline_with_word(learned), "a photo of a <grooty>", steps=2)[0]
    save_picture(picture, learned.grids_folder / "single")
    rename_concept("grooty", "robo", "<my-toy>")
    rename_concept("robo", "zorg", "<robot>")
    (path,) = Concept.load("zorg").grids_folder.rglob("*.png")
    again = remake(path)
    assert again.settings.prompt == "a photo of a <robot>"
    assert again.image.tobytes() == picture.image.tobytes()
    rename_concept("zorg", "grooty", "<grooty>")
    (path,) = Concept.load("grooty").grids_folder.rglob("*.png")
    assert remake(path).settings == picture.settings


def test_of_two_copies_the_one_beside_the_picture_draws_it(learned, concepts):
    shutil.rmtree(learned.grids_folder)
    shutil.copytree(learned.folder, concepts / "copy")
    rename_concept("copy", "copy", "<copy>")
    copy = Concept.load("copy")
    picture = generate(pipeline_with_word(copy), "a photo of a <copy>", steps=1, size=32)[0]
    assert remake(save_picture(picture, copy.grids_folder)).settings == picture.settings


def test_files_of_the_version_before_are_read_and_renamed(learned):
    """They held the concept's name and word."""
    rewrite(learned.folder / "concept.json", lambda content: FORMER_NAMES | content)
    made = learned.training_folder / "made_with.json"
    rewrite(made, lambda content: content | {"concept": FORMER_NAMES | content["concept"]})
    rewrite(learned.training_folder / "outcome.json", lambda content: {"concept": "grooty"} | content)
    export = learned.export_folder / "diffusers" / "grooty.safetensors"
    now = export.read_bytes()
    save_file(load_file(export), export, {"format": "pt", "base_model": "miniature", **FORMER_NAMES})
    assert not inputs_changed(learned, run_inputs(learned)) and RunSummary.load(learned).concept == "grooty"
    rename_concept("grooty", "robo")
    robo = Concept.load("robo")
    assert not inputs_changed(robo, run_inputs(robo)) and finished(robo).concept == "robo"
    export = robo.export_folder / "diffusers" / "robo.safetensors"
    with safe_open(export, "pt") as file:
        assert file.metadata() == {"base_model": "miniature"}
    renamed = load_file(export)
    assert export.read_bytes() != now
    assert {*renamed} == {*load_file(export_for(robo, "diffusers"))}


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_no_file_of_a_renamed_concept_repeats_a_name(learned):
    write_report(learned)
    rename_concept("grooty", "robo")
    texts = ("concept.json", "scores.json", "training/made_with.json", "training/outcome.json")
    robo = Concept.load("robo")
    for path in texts:
        content = json.loads((robo.folder / path).read_text())
        assert "robo" not in json.dumps(content | {"placeholder_token": ""}), path
    assert not robo.report_path.exists() and "grooty" in (robo.folder / "report-grooty.html").read_text()
    page = write_report(robo).read_text()
    assert "&lt;robo&gt;, on miniature" in page and "robo.safetensors" in page and "grooty." not in page


def test_a_pipeline_that_was_saved_has_the_new_word(learned):
    save_pipeline(learned)
    before = pipeline_files(learned)
    rename_concept("grooty", "elan", "<élan>")  # JSON may write it as \u00e9
    rename_concept("elan", "robo", "<robo>")
    robo = Concept.load("robo")
    tokenizer = load_pipeline(str(robo.folder / "pipeline")).tokenizer
    vocabulary = tokenizer.get_vocab()
    assert {*robo.placeholder_tokens} <= {*vocabulary}
    assert vocabulary.keys().isdisjoint({"<grooty>", "<élan>"})
    ids = tokenizer.convert_tokens_to_ids(robo.placeholder_tokens)
    assert tokenizer("a <robo>", add_special_tokens=False).input_ids[1:] == ids[:1]
    assert pipeline_files(robo) == before, "the weights stay"


def pipeline_files(concept):
    return {path.name: path.read_bytes() for path in (concept.folder / "pipeline").rglob("*.safetensors")}


def test_a_word_changed_in_notebook_2_goes_into_the_result(grooty, families):
    concept = grooty.changed(base_model=str(families["sd1"]), training={"resolution": 64, "sample_every": 0})
    train(concept, scorer=lambda concept, model: 1.0)
    changed = concept.changed(placeholder_token="<robo>")
    assert train(changed).steps == 4 and list(load_file(changed.embeds_path)) == ["<robo>"]


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
        ("robo", "toy", "in angle brackets, for example <toy>"),
        ("robo", "<|endoftext|>", "in angle brackets, for example <endoftext>"),
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
    assert Overview("my grooty").state == "damaged"
    assert delete_concept("my grooty").startswith("Delete my grooty")


def test_a_rename_that_breaks_off_leaves_the_word(learned, monkeypatch):
    rows = read_rows(learned)

    def full(*given):
        raise OSError("no space left")

    monkeypatch.setattr("helpers.concept.embedding.write_whole", full)
    with pytest.raises(OSError):
        rename_concept("grooty", "robo")
    assert Overview("robo").state == "learned" and torch.equal(read_rows(Concept.load("robo"))[0], rows[0])


def test_a_rename_leaves_torn_files_as_they_are(learned):
    torn = [step_path(learned, 4), *learned.export_folder.rglob("*.safetensors")]
    for path in torn:
        path.write_bytes(path.read_bytes()[:50])
    rename_concept("grooty", "robo")
    assert Overview("robo").state == "learned" and read_rows(Concept.load("robo"))
    assert len(torn[0].parents[3].joinpath("robo/training/steps/00004.safetensors").read_bytes()) == 50


def test_a_run_at_work_keeps_its_folder(grooty):
    save_inputs(grooty, run_inputs(grooty))
    log = Log(grooty.training_folder, 0)
    log.write(1, loss=0.1)
    log.close()
    changes = (lambda: rename_concept("grooty", "robo"), lambda: delete_concept("grooty", sure=True))
    with locked(grooty.lock_path, "no"):
        for change in changes:
            with pytest.raises(UserError, match=f"being learned now, by process {os.getpid()}, since 20"):
                change()
        with pytest.raises(UserError, match=f"learned already, by process {os.getpid()}"):
            train(grooty)
    rename_concept("grooty", "robo")
    assert [one.name for one in all_concepts()] == ["robo"]


def test_deleting_asks_and_can_be_undone(learned):
    files = {path.relative_to(learned.folder): path.read_bytes() for path in learned.folder.rglob("*.*")}
    asked = delete_concept("grooty")
    assert "5 pictures and the learned word <grooty>" in asked and learned.folder.is_dir()
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


def test_a_double_click_is_one_click_and_what_is_replaced_is_not_kept_in_memory(learned, double_click):
    gallery = ConceptGallery()

    def twice(name):
        double_click(next(one for one in buttons(gallery) if one.description == name))
        assert "alert" not in gallery.message.value

    before, kept = buttons(gallery), len(_instances)
    for first, second in (("Delete", "Delete it"), ("Rename", "Rename it")):
        twice(first)
        twice(second)
        if first == "Delete":
            assert not learned.folder.exists()
            twice("Bring back grooty")
    assert learned.folder.is_dir() and len(_instances) == kept
    assert all(one.comm is None for one in before)


def test_what_another_notebook_has_changed_is_shown_once_a_button_finds_out(learned):
    gallery = ConceptGallery()
    press(card(gallery, "grooty"), "Delete")
    rename_concept("grooty", "robo")
    press(card(gallery, "grooty"), "Delete it")
    assert "no concept “grooty”" in gallery.message.value and card(gallery, "robo")


def test_the_buttons_delete_after_a_question_and_bring_back(learned):
    gallery = ConceptGallery()
    press(card(gallery, "grooty"), "Delete")
    asked = card(gallery, "grooty").panel.children[0].value
    assert "Delete grooty, 5 pictures and the learned word &lt;grooty&gt;" in asked
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
    assert "<table>" in bundle["text/html"] and "image/webp" in bundle["text/html"]
    assert "drawn with the word: a photo of a <grooty>" in concept_sheet().alt


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vectors": "2x"}, "vectors: give a whole number (you gave '2x')."),
        ({"vectors": 0}, "vectors: give 1 or more (you gave 0)."),
        ({"what_to_teach": "thing"}, "what_to_teach: choose 'object' or 'style' (you gave 'thing')."),
        ({"training": {"resolution": 65}}, "resolution: give a multiple of 8 (you gave 65)."),
        ({"training": {"sped": 1}}, "sped: there is no such setting (you gave 1)."),
        ({"training": "fast"}, "The settings: give settings by their names (you gave 'fast')."),
        ({"own_templates": "a {}"}, "own_templates: give a list, in [ ] (you gave 'a {}')."),
    ],
)
def test_a_setting_that_can_not_be_used_is_answered_with_what_would_do(settings, sentence):
    for give in (Concept.make, Concept.open):
        with pytest.raises(UserError) as answer:
            give("grooty", **settings)
        assert str(answer.value) == sentence


def test_all_training_settings_can_be_given_at_once(grooty):
    changed = grooty.changed(training=TrainingSettings(seed=3))
    assert changed.training == TrainingSettings(seed=3)


def test_a_wrong_setting_by_assignment_is_the_same_sentence():
    concept = Concept.make("grooty")
    with pytest.raises(UserError, match=r"^vectors: give 1 or more \(you gave 0\)\.$"):
        concept.vectors = 0
    with pytest.raises(UserError, match="seed: give a whole number"):
        concept.training.seed = "30o"
    assert (concept.vectors, concept.training.seed) == (2, 42)


@pytest.mark.parametrize("name", ["CON", "nul", "com1", "Aux"])
def test_a_name_that_windows_keeps_for_itself_is_refused(name):
    with pytest.raises(UserError, match="choose another, Windows keeps this name"):
        Concept.make(name)


@pytest.mark.parametrize("copy", ["grooty copy", "grooty (2)", "größty"])
def test_a_folder_that_was_copied_by_hand_says_so_and_is_not_opened_unasked(copy, grooty, concepts):
    shutil.copytree(grooty.folder, concepts / copy)
    assert Overview(copy).state == "damaged" and chosen_concept() == "grooty"
    with pytest.raises(UserError, match=f"No concept can be called “{re.escape(copy)}”: rename its folder"):
        Concept.load(copy)


def test_on_a_disk_without_capitals_a_name_of_another_spelling_changes_nothing(grooty, monkeypatch):
    before = grooty.save().read_bytes()
    monkeypatch.setattr(places.os, "listdir", lambda folder: ["grooty"])  # as it is listed there
    (places.concepts_root() / "Grooty").symlink_to(grooty.folder)  # and as it is found
    with pytest.raises(UserError, match="no difference between “Grooty” and “grooty”"):
        Concept.make("Grooty", vectors=5).save()
    assert grooty.save().read_bytes() == before


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_settings_saved_by_windows_editor_are_read(encoding, grooty):
    path = grooty.folder / "concept.json"
    grooty.changed(own_templates=["Zoë's {}"]).save()
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding, newline="\r\n")
    assert Concept.load("grooty").own_templates == ["Zoë's {}"]
    path.write_text(path.read_text(encoding=encoding), encoding="utf-16")
    with pytest.raises(UserError, match=r"concept\.json is damaged"):
        Concept.load("grooty")


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/toy", "a\0b", "", "..", "é"])
def test_a_name_that_can_be_none_is_one_sentence(name, concepts):
    for act in (Concept.load, Concept.make, open_concept):
        with pytest.raises(UserError):
            act(name)


@pytest.mark.parametrize("seed", [2**63, 2**64, -(2**63) - 1, 10**30])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(UserError, match=r"seed: give (less than|-?\d+ or more)"):
        Concept.make("grooty", training={"seed": seed})


@pytest.mark.parametrize("seed", [-1, 0, 2**63 - 1, -(2**63)])
def test_any_other_seed_is_one_that_a_run_can_draw_with(seed):
    used = Concept.make("grooty", training={"seed": seed}).training.seed
    assert [torch.Generator().manual_seed(used + more).initial_seed() % 2**64 for more in range(4)] == [
        (seed + more) % 2**64 for more in range(4)
    ]
    assert "not a random one" in setting_help("seed"), "AUTOMATIC1111 takes -1 for any"


@pytest.mark.parametrize("braces", ["{red|blue}", "a {thing:}", "}{", "{0}", "{{x}}", ":}"])
def test_only_empty_braces_are_the_words_place(braces, grooty):
    concept = grooty.changed(own_templates=[f"a {braces} photo of {{}}"])
    assert fill(concept, concept.templates[-1]).startswith(f"a {braces} photo of <grooty>")
    with pytest.raises(UserError, match=r"exactly one \{\}"):
        grooty.changed(own_templates=[f"a {braces} photo"])


@pytest.mark.parametrize(
    "change", [{"depth": 3}, {"training": {"depth": 3}}, {"vectors": "many"}, {"vectors": None}]
)
def test_settings_of_another_version_are_named_with_the_file_and_the_notebook(change, grooty):
    path = grooty.save()
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"concept\.json .*(depth|vectors).*notebook 2"):
        Concept.load("grooty")


def test_the_initializer_is_asked_for_where_nobody_chose_it(concepts):
    assert Concept.make("my_cat").initializer_token == "toy", "the miniature draws nothing else"
    assert Concept.make("my_cat", base_model="some/model").initializer_token == ""
    assert Concept.make("grooty", base_model="some/model").initializer_token == "toy", "ours show a toy"
    Concept.make("my_cat").save()
    moved = Concept.open("my_cat", base_model="some/model")
    assert moved.initializer_token == ""
    with pytest.raises(UserError, match=r"Which word should yours start from.*INITIALIZER_TOKEN"):
        check_words(moved, load_tokenizers("miniature"))
    moved.changed(initializer_token="toy").save()
    assert Concept.open("my_cat", vectors=3).initializer_token == "toy", "what was chosen stays"


def test_a_folder_made_when_toy_was_the_default_opens(concepts):
    path = Concept.make("old", base_model="some/model", initializer_token="toy").save()
    assert Concept.load("old").initializer_token == "toy"
    path.write_text('{"placeholder_token": "<old>", "base_model": "some/model"}')
    assert Concept.load("old").initializer_token == ""


@pytest.mark.parametrize("setting", ["placeholder_token", "initializer_token", "own_templates", "base_model"])
def test_half_a_character_in_a_setting_is_one_sentence(setting):
    half = ["a {} \ud800"] if setting == "own_templates" else "\ud800"
    with pytest.raises(UserError, match=rf"^{setting}: there is half a character in .*\\ud800") as told:
        Concept.make("grooty", **{setting: half})
    assert str(told.value).encode()


def test_a_folder_in_the_place_of_the_settings_is_one_sentence(grooty):
    path = grooty.save()
    path.unlink()
    path.mkdir()
    for act in (grooty.save, lambda: Concept.load("grooty"), lambda: rename_concept("grooty", "robo")):
        with pytest.raises(UserError, match=r"^concept\.json is a folder: give it another name"):
            act()
    assert (Overview("grooty").state, path.is_dir()) == ("damaged", True)
