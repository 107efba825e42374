"""The form for grids as a person uses it: fields are typed into, buttons pressed, and the files looked at."""

import dataclasses
import datetime
import io
import re
import threading

import ipywidgets
import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from known_words import known_rows
from PIL import Image
from transformers import BatchFeature

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_rows, step_path
from helpers.inference.examples import MINIATURE_KNOWS, unknown_words
from helpers.inference.grid import Sheet, xy_grid
from helpers.inference.pipeline import pipeline_with_word
from helpers.inference.png import read_settings
from helpers.miniature.networks import _EXTRA_WORDS
from helpers.miniature.world import caption, sample_drawing
from helpers.model.base_model import load_tokenizers
from helpers.model.tokens import add_tokens
from helpers.widgets import kit
from helpers.widgets.grid_form import GridForm

PROMPT = "a photo of a <grooty>"


@pytest.fixture
def form(miniature):
    """A form that draws one picture in one step."""
    concept, pipeline = miniature
    form = GridForm(pipeline, concept, PROMPT, steps=1, guidance=4.0, size=16)
    form.x.values.value = "0"
    return form


def everything_in(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything_in(child)


def buttons(form, description):
    kind = (widget for widget in everything_in(form) if isinstance(widget, ipywidgets.Button))
    return [button for button in kind if button.description == description]


def press(form, description):
    """Press a button, and wait for the drawing that it may have begun."""
    (button,) = buttons(form, description)
    button.click()
    if form.run.thread:
        form.run.thread.join()


def text_of(form):
    shown = (widget.value for widget in everything_in(form) if isinstance(widget, ipywidgets.HTML))
    return re.sub(r"<[^>]*>", " ", " ".join(shown))


def saved(concept):
    return set((concept.grids_folder / "yours").glob("*.png"))


def test_it_draws_what_it_says_and_saves_each_picture(miniature, form):
    concept, _ = miniature
    before = saved(concept)
    form.y.choice.value = "Guidance"
    form.y.values.value = "2, 6"
    press(form, "Draw")
    (path,) = saved(concept) - before
    assert f"grids/yours/{path.name}" in text_of(form)
    made = [read_settings(one) for one in path.with_suffix("").glob("*.png")]
    assert {(one.guidance, one.seed, one.prompt, one.size) for one in made} == {
        (2.0, 0, PROMPT, 16),
        (6.0, 0, PROMPT, 16),
    }
    press(form, "Draw")
    assert saved(concept) - before == {path}, "the same grid keeps its file"


def test_a_picture_that_is_pressed_shows_its_settings(form):
    form.x.values.value = "3, 4"
    press(form, "Draw")
    alts = re.findall('alt="([^"]*)"', " ".join(cell.value for cell in pictures(form)))
    assert alts == ["seed 3", "seed 4"]
    press(form, "Settings of seed 4")
    said = text_of(form)
    assert re.search(r"Seed\s+4\b", said) and re.search(r"Guidance\s+4\b", said) and "DPM++ 2M" in said
    press(form, "Use these settings")
    assert form.x.values.value == "4" and form.fields["seed"].value == 4


def pictures(form):
    return [widget for widget in everything_in(form.pictures) if "<img" in getattr(widget, "value", "")]


def test_the_word_is_put_into_the_prompts_by_buttons(form):
    form.fields["prompt"].value = "a photo of a"
    press(form, "+ (<grooty>:1.3)")
    first, second = buttons(form, "+ <grooty>")
    first.click()
    second.click()
    assert form.fields["prompt"].value == "a photo of a (<grooty>:1.3) <grooty>"
    assert form.fields["negative_prompt"].value == "<grooty>"


@pytest.mark.parametrize(
    ("field", "typed", "sentence"),
    [
        ("prompt", "a (<grooty>:1,3)", "(&lt;grooty&gt;:1,3)” has a comma"),
        ("prompt", "a <groty>", "&lt;groty&gt;, which was not learned"),
        ("negative_prompt", "(blurry:3)", "“(blurry:3)” can"),
        ("steps", 0, "steps: give 1 or more"),
        ("weight", 3, "weight: give 2.0 or less"),
        ("guidance", float("inf"), "guidance: give a number"),
    ],
)
def test_what_can_not_be_used_is_said_as_one_types_and_marked(field, typed, sentence, miniature, form):
    before, good = saved(miniature[0]), form.fields[field].value
    form.fields[field].value = typed
    assert sentence in text_of(form) and "solid" in form.fields[field].layout.border_top
    press(form, "Draw")
    assert sentence in text_of(form) and saved(miniature[0]) == before and not form.run.start.disabled
    form.fields[field].value = good
    assert sentence not in text_of(form) and not form.fields[field].layout.border_top


def test_words_that_the_miniature_does_not_know_are_said_and_what_it_knows_is_offered(form):
    assert not form.unknown.value
    form.fields["prompt"].value = "a photo of a robot <grooty> on the moon, in the style of (neon:1.2)"
    assert "The miniature does not know: robot, moon." in text_of(form) and "under the sea" in text_of(form)
    assert not form.fields["prompt"].layout.border_top, "no mistake: it can be drawn"
    form.fields["prompt"].value = PROMPT
    form.fields["negative_prompt"].value = "blurry"
    assert "does not know: blurry." in text_of(form)
    form.fields["negative_prompt"].value = ""
    form.y.choice.value = "Prompt"
    assert not form.unknown.value, "the examples that an axis begins with"
    form.y.values.value = "a toy in a castle\na toy at night"
    assert "does not know: castle." in text_of(form)


def test_every_word_of_the_miniatures_captions_is_known_and_no_other():
    concept, (tokenizer, *_) = Concept.make("grooty"), load_tokenizers("miniature")
    rng = np.random.default_rng(0)
    captions = " ".join(caption(sample_drawing(rng), rng)[0] for _ in range(3000))
    offered = " ".join(MINIATURE_KNOWS.values())
    assert unknown_words(concept, tokenizer, f"{captions} {offered}") == []
    further = [word for word in _EXTRA_WORDS if word not in captions.split()]
    assert unknown_words(concept, tokenizer, " ".join(further)) == further
    assert {*re.findall(r"\w+", offered)} <= {*re.findall(r"\w+", captions)}
    other = concept.changed(base_model="runwayml/stable-diffusion-v1-5")
    assert unknown_words(other, tokenizer, "a castle") == []
    add_tokens(tokenizer, ["<Zork>"])
    assert unknown_words(concept, tokenizer, "a <zork> in a castle") == ["castle"]


def test_a_step_that_was_not_kept_is_said_and_the_form_goes_on(form):
    form.y.choice.value = "Training step"
    form.y.values.value = "10, 60"
    press(form, "Draw")
    assert "Step 60 was not kept" in text_of(form)
    form.y.values.value = "10, result"
    press(form, "Draw")
    assert len(pictures(form)) == 2


def test_a_setting_on_an_axis_is_typed_there_only(form):
    form.x.choice.value = "Steps"
    assert form.fields["steps"].disabled and not form.fields["seed"].disabled
    assert form.x.values.value == "5, 10, 25"
    form.x.choice.value = "nothing"
    form.fields["seed"].value = 8
    press(form, "Draw")
    (picture,) = form.sheet.pictures
    assert picture.settings.seed == 8 and picture.settings.steps == 1


def test_before_and_after_is_offered(form):
    form.y.choice.value = "Before and after"
    assert form.y.values.value == "toy, <grooty>"
    press(form, "Draw")
    assert [one.settings.prompt for one in form.sheet.pictures] == ["a photo of a toy", PROMPT]


def test_every_axis_begins_with_values_that_can_be_drawn(form):
    for choice in form.y.choice.options:
        form.y.choice.value = choice
        if choice != "Seed":  # the other axis has it
            assert "alert" not in form.message.value and form.plan.cells(), choice


def test_a_saved_grid_puts_the_form_back_and_is_drawn_again(miniature, form):
    form.y.choice.value = "Weight"
    form.y.values.value = "0.5, 1.5"
    form.fields["negative_prompt"].value = "a beach"
    form.fields["training_step"].value = 10
    press(form, "Draw")
    plan, drawn = form.plan, form.sheet.image.tobytes()
    other = GridForm(form._pipeline, miniature[0], "a toy", steps=3)
    assert other.fields["training_step"].label == "the result"
    press(other, "Draw")
    assert len(pictures(other)) == 4
    other.saved.list.index = 1  # the newest is its own
    press(other, "Reopen")
    assert not pictures(other) and not other.chosen.children, "they are another grid's"
    assert other.plan == plan and "Now Draw makes the same again" in text_of(other)
    press(other, "Draw")
    assert other.sheet.image.tobytes() == drawn


def test_a_file_from_elsewhere_is_reopened_and_one_without_a_grid_is_named(miniature, form, tmp_path):
    concept, pipeline = miniature
    sheet = xy_grid(pipeline, ("scheduler", ["DDIM", "PLMS"]), name="own", steps=1, size=16)
    upload(form, "sheet.png", sheet.save(concept).read_bytes())
    assert form.x.choice.value == "Scheduler" and form.x.values.value == "DDIM, PLMS"
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    upload(form, "holiday.png", content.getvalue())
    assert "holiday.png holds no settings" in text_of(form) and form.x.choice.value == "Scheduler"


def upload(form, name, content):
    now = datetime.datetime.now()
    form.saved.upload.value = [
        {"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": now}
    ]


def test_a_word_that_was_learned_again_is_said_though_the_form_is_filled(miniature, form):
    concept, _ = miniature
    form.fields["training_step"].value = 10
    press(form, "Draw")
    save_rows(step_path(concept, 10), concept, known_rows("miniature", "blue toy"))
    form.fields["training_step"].value = "result"
    press(form, "Reopen")
    assert "learned again since" in text_of(form) and form.fields["training_step"].value == 10
    save_rows(step_path(concept, 10), concept, known_rows("miniature", "green toy"))


def test_a_grid_that_another_base_model_drew_is_reopened_with_a_word_on_that(miniature, form, tmp_path):
    concept, _ = miniature
    (tmp_path / "model").symlink_to(places.miniature_folder())
    other = pipeline_with_word(concept, base_model=str(tmp_path / "model"))
    sheet = xy_grid(other, ("scheduler", ["DDIM"]), name="both", steps=1, size=16)
    upload(form, "both.png", sheet.save(concept).read_bytes())
    assert form.x.values.value == "DDIM" and "Now Draw makes the same" not in text_of(form)
    assert "drawn with the base model “model”" in text_of(form)


def test_pictures_that_the_safety_checker_made_black_are_said(miniature):
    concept, _ = miniature
    pipeline = pipeline_with_word(concept)
    pipeline.feature_extractor = lambda images, return_tensors: BatchFeature({"pixel_values": torch.ones(1)})
    pipeline.safety_checker = lambda images, clip_input: (images * 0, [True] * len(images))
    form = GridForm(pipeline, concept, PROMPT, steps=1, size=16)
    press(form, "Draw")
    assert "safety checker made 4 pictures black" in text_of(form)
    press(form, "Settings of seed 0")
    assert "made this picture black" in text_of(form)


def test_while_it_draws_there_is_a_bar_and_an_interrupt_loses_nothing(miniature, form, monkeypatch):
    seen = []

    def draw_plan(pipeline, plan, name, bar, say):
        bar.update(1)
        seen.append((form.run.start.disabled, [type(one) for one in everything_in(form)], bar.total))
        form.run.stop.click()
        bar.update(1)
        raise AssertionError("it goes on")

    monkeypatch.setattr("helpers.inference.grid.draw_plan", draw_plan)
    form.x.values.value = "0-4"
    press(form, "Draw")
    ((disabled, kinds, total),) = seen
    assert disabled and ipywidgets.FloatProgress in kinds and total == 5
    assert "Stopped" in text_of(form) and not form.run.start.disabled and form.run.stop.disabled
    assert ipywidgets.FloatProgress not in [type(one) for one in everything_in(form)]


def test_stop_ends_a_drawing_and_the_next_one_is_whole(miniature, form):
    concept, pipeline = miniature
    before = saved(concept)
    form.fields["steps"].value = 500
    form.fields["training_step"].value = 10
    form.run.start.click()
    form.run.stop.click()
    form.run.thread.join()
    assert "Stopped: nothing was saved." in text_of(form) and saved(concept) == before
    assert pipeline.learned_word.step is None, "the pipeline has the word that it had"
    form.fields["steps"].value = 1
    press(form, "Draw")
    assert "Saved: " in text_of(form) and len(pictures(form)) == 1


def test_what_can_not_be_drawn_is_said_at_the_click_so_that_the_next_change_takes_it_away(form):
    form.fields["prompt"].value = "a (<grooty>:7)"
    form.message.say()
    form.run.start.click()
    assert "can&#x27;t be used" in form.message.value and form.run.thread is None
    form.fields["prompt"].value = PROMPT
    assert "alert" not in form.message.value


def test_a_grid_is_drawn_as_the_form_was_at_the_click(form, monkeypatch):
    go_on, drawn = threading.Event(), []
    monkeypatch.setattr(GridForm, "_draw", lambda form, plan: (go_on.wait(30) and drawn.append(plan)) or "")
    form.run.start.click()
    form.x.values.value = "7"
    go_on.set()
    form.run.thread.join()
    assert drawn[0].x.values == (0,)


def test_a_second_click_in_a_row_does_nothing(form, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        GridForm, "_draw", lambda form, plan: drawn.append(form.run.asked_to_stop.wait(30)) or ""
    )
    form = GridForm(form._pipeline, form._concept, PROMPT)
    form.run.start.click()
    first = form.run.thread
    form.run.start.click()
    form.run.stop.click()
    first.join()
    assert form.run.thread is first and drawn == [True]
    form.run.stop.click()
    assert "Stopping" not in form.message.value, "it has ended already"


def test_where_no_widget_lives_there_is_the_line_that_draws_the_same(miniature, form):
    concept, pipeline = miniature
    form.x.values.value = "2, 3"
    shown = form._repr_mimebundle_()
    assert "<img" not in shown["text/html"]
    code = re.sub("<[^>]*>", "", shown["text/html"]).replace("&#x27;", "'")
    code = code.replace("&lt;", "<").replace("&gt;", ">")
    sheet = eval(code, {"xy_grid": xy_grid, "pipeline": pipeline, "concept": concept})
    press(form, "Draw")
    assert form.sheet.image.tobytes() == sheet.image.tobytes()
    assert form.sheet.image.as_html() in form._repr_mimebundle_()["text/html"]
    form.fields["steps"].value = 0
    assert "text/html" not in form._repr_mimebundle_(), "no line draws this; the form is shown all the same"


def test_every_control_has_a_name(form):
    press(form, "Draw")
    kinds = (ipywidgets.Button, ipywidgets.FileUpload, ipywidgets.Dropdown, ipywidgets.Textarea)
    controls = [widget for widget in everything_in(form) if isinstance(widget, kinds)]
    assert len(controls) > 12 and all(one.description and one.tooltip for one in controls)


def test_a_grid_of_another_concept_leaves_the_form_as_it_is(miniature, form, monkeypatch):
    _, pipeline = miniature
    press(form, "Draw")
    form.fields["prompt"].value = "a photo of a <grooty> in the snow"
    other = dataclasses.replace(pipeline.learned_word, concept=Concept.make("other"), rows_hash="others")
    monkeypatch.setattr(pipeline, "learned_word", other)
    press(form, "Reopen")
    assert "drawn with the concept grooty: open notebook 5 with it" in text_of(form)
    assert form.fields["prompt"].value == "a photo of a <grooty> in the snow"


def test_a_click_on_a_picture_while_a_grid_is_saved_shows_that_picture(form, monkeypatch):
    form.x.values.value = "7-8"
    press(form, "Draw")
    save, seen = Sheet.save, []

    def look(sheet, concept):
        last = [one for one in everything_in(form) if "Settings of" in getattr(one, "description", "")][-1]
        last.click()
        seen.append((last.description, text_of(form.chosen)))
        return save(sheet, concept)

    monkeypatch.setattr(Sheet, "save", look)
    form.x.values.value = "9"
    press(form, "Draw")
    ((pressed, shown),) = seen
    assert re.search(f"Seed {pressed.removeprefix('Settings of seed ')}\\b", " ".join(shown.split()))


def test_a_concept_that_was_renamed_since_gets_no_new_folder(miniature, form):
    concept, _ = miniature
    concept.folder.rename(concept.folder.with_name("robo"))
    press(form, "Draw")
    assert "no concept “grooty”" in text_of(form) and not concept.folder.exists()
    concept.folder.with_name("robo").rename(concept.folder)


def test_nothing_of_a_closed_form_stays_in_memory(miniature):
    concept, pipeline = miniature
    before = len(_instances)
    form = GridForm(pipeline, concept, PROMPT, steps=1, size=16)
    for _ in range(2):
        press(form, "Draw")
    kit.close(form)
    assert len(_instances) == before


def test_a_prompt_without_the_word_is_drawn_and_said(form):
    form.fields["prompt"].value = "a photo of a toy"
    press(form, "Draw")
    assert "Saved: " in text_of(form) and "No prompt had your word in it: put &lt;grooty&gt;" in text_of(form)
    form.fields["prompt"].value = PROMPT
    press(form, "Draw")
    assert "No prompt had" not in text_of(form)
