"""Grids over any two settings: drawn, saved, reopened from the file alone and drawn again."""

import threading

import numpy as np
import pytest
from known_words import known_rows
from matplotlib import style
from PIL import Image

from helpers.common import places
from helpers.common.errors import UserError
from helpers.common.sheets import finish, new_figure
from helpers.concept.embedding import save_result, save_rows, step_path
from helpers.inference.grid import (
    Axis,
    GridPlan,
    draw_plan,
    make_plan,
    redraw,
    reopen,
    saved_sheets,
    with_labels,
    xy_grid,
)
from helpers.inference.pipeline import SCHEDULERS, generate, pipeline_with_word, remake, switch_step
from helpers.model.base_model import load_pipeline

QUICK = {"steps": 2, "guidance": 4.0}
VALUES = {
    "prompt": ["a photo of a {}", "a {} on a beach"],
    "negative_prompt": ["", "a beach"],
    "seed": [1, 2],
    "guidance": [1, 6],
    "steps": [1, 3],
    "scheduler": ["DDIM", "Euler a"],
    "weight": [0.5, 1.5],
    "training_step": [10, None],
    "word": ["toy", "<grooty>"],
}


def pictures(sheet):
    return [picture.image.tobytes() for picture in sheet.pictures]


@pytest.mark.parametrize("name", VALUES)
def test_every_setting_can_be_an_axis_and_shows(name, miniature):
    _, pipeline = miniature
    other = ("seed", [3]) if name != "seed" else ("guidance", [4])
    settings = {key: value for key, value in QUICK.items() if key not in (name, other[0])}
    sheet = xy_grid(pipeline, (name, VALUES[name]), other, prompt="a photo of a {}", **settings)
    assert len(set(pictures(sheet))) == 2 and pipeline.learned_word.step is None


def test_rows_and_columns_are_where_the_labels_say(miniature):
    _, pipeline = miniature
    sheet = xy_grid(pipeline, ("seed", [5, 6, 7]), ("training_step", [None, 10]), **QUICK)
    made = [(picture.settings.seed, picture.settings.training_step) for picture in sheet.pictures]
    assert made == [(5, None), (6, None), (7, None), (5, 10), (6, 10), (7, 10)]
    assert sheet.plan.labels[4] == "step 10, seed 6"


def test_a_saved_grid_is_reopened_and_drawn_again_to_the_bit(miniature):
    concept, pipeline = miniature
    axes = ("weight", [0.7, 1, 1.4]), ("training_step", [10, None])
    asked = {"prompt": "a {} on a beach", "negative_prompt": "(snow:1.2)", "scheduler": "DDIM", "size": 32}
    sheet = xy_grid(pipeline, *axes, "mine", **asked, **QUICK)
    path = sheet.save(concept)
    assert path in saved_sheets(concept)
    assert reopen(path) == sheet.plan == reopen("elsewhere.png", path.read_bytes())
    generate(pipeline, "a toy", scheduler="Euler a", **QUICK)  # whatever was drawn in between
    again = redraw(path)
    assert pictures(again) == pictures(sheet)
    assert again.image.tobytes() == sheet.image.tobytes() == Image.open(path).tobytes()


def test_the_file_names_no_path_of_this_machine(grooty):
    folder = grooty.folder / "my models" / "miniature"
    folder.parent.mkdir()
    folder.symlink_to(places.miniature_folder())
    concept = grooty.changed(base_model=str(folder))
    concept.save()
    save_result(concept, known_rows("miniature", "red toy"))
    sheet = xy_grid(pipeline_with_word(concept), ("seed", [1]), steps=1, size=16)
    texts = Image.open(sheet.save(concept)).text
    assert '"base_model":"miniature"' in texts["grid"] and "my models" not in str(texts)


def test_a_word_that_was_learned_again_is_not_passed_off_as_the_old_one(miniature):
    concept, pipeline = miniature
    path = xy_grid(pipeline, ("training_step", [10]), name="old", steps=1).save(concept)
    save_rows(step_path(concept, 10), concept, known_rows("miniature", "blue toy"))
    with pytest.raises(UserError, match="learned again since"):
        redraw(path, pipeline)
    save_rows(step_path(concept, 10), concept, known_rows("miniature", "green toy"))
    assert len(redraw(path, pipeline).pictures) == 1


def test_what_another_base_model_drew_is_not_drawn_again_with_the_word_s_own(miniature, tmp_path):
    """As notebook 7 does, whose Dreambooth model is in a folder `model`."""
    concept, _ = miniature
    (tmp_path / "model").symlink_to(places.miniature_folder())
    other = pipeline_with_word(concept, base_model=str(tmp_path / "model"))
    sheet = xy_grid(other, ("seed", [1]), name="both", steps=1, size=16)
    path = sheet.save(concept)
    for again, file in ((redraw, path), (remake, *path.with_suffix("").iterdir())):
        with pytest.raises(UserError, match="drawn with the base model “model”, and would look different"):
            again(file)
        again(file, other)


def test_the_labels_are_the_same_while_another_thread_draws_curves():
    """As the view of a training does; its style has lines across the pictures."""
    body, ended = Image.new("RGB", (64, 64), "red"), threading.Event()

    def draw_curves():
        while not ended.is_set():
            finish(new_figure(size=(4, 3))[0], "curves")

    alone = with_labels(body, [""], ["a"]).tobytes()
    thread = threading.Thread(target=draw_curves)
    thread.start()
    together = [with_labels(body, [""], ["a"]).tobytes() for _ in range(8)]
    ended.set()
    thread.join()
    with style.context("ggplot"):  # a person's own
        assert [*together, with_labels(body, [""], ["a"]).tobytes()] == [alone] * 9


def test_a_word_that_is_changed_meanwhile_waits_for_the_grid(miniature):
    """As Keep does, in a form beside the one that draws in a thread."""
    concept, pipeline = miniature

    class Bar:
        thread = threading.Thread(target=switch_step, args=(pipeline, concept, 10))

        def update(self, _number):
            if not self.thread.ident:
                self.thread.start()
                self.thread.join(0.5)

    plan = make_plan(pipeline, ("seed", range(2)), steps=1, size=16, batch_size=1)
    sheet = draw_plan(pipeline, plan, bar=Bar())
    Bar.thread.join()
    assert len({picture.settings.rows_hash for picture in sheet.pictures}) == 1
    assert pipeline.learned_word.step == 10
    switch_step(pipeline, concept, None)


def test_a_file_without_a_grid_is_named(tmp_path):
    bare = tmp_path / "bare.png"
    Image.new("RGB", (4, 4)).save(bare)
    for path in (bare, tmp_path / "torn.png"):
        with pytest.raises(UserError, match=rf"{path.stem}\.png"):
            reopen(path)
    with pytest.raises(UserError, match="page holds no settings"):
        reopen("page", b"<html>")


@pytest.mark.parametrize(
    ("axes", "settings", "sentence"),
    [
        ([("guidence", [1])], {}, "no axis “guidence”: choose one of these: prompt, negative_prompt, seed"),
        ([("seed", [])], {}, "seed has no values"),
        ([("seed", [1]), ("seed", [2])], {}, "Both axes are seed"),
        ([("seed", ["x"])], {}, "seed: give a whole number (you gave 'x')"),
        ([("steps", [2.5])], {}, "steps: give a whole number (you gave 2.5)"),
        ([("steps", [5, 0])], {}, "steps: give 1 or more (you gave 0)"),
        ([("steps", [5, 1001])], {}, "can't take 1001 steps: this model has 1000 levels of noise"),
        ([("guidance", [1, "nan"])], {}, "guidance: give a number (you gave 'nan')"),
        ([("seed", [2**64])], {}, f"seed: give less than {2**63}"),
        ([("scheduler", ["DDIM", "Euler b"])], {}, "scheduler: choose .*PLMS.* (you gave 'Euler b')"),
        ([("weight", [1, 3])], {}, "weight: give 2.0 or less (you gave 3)"),
        ([("weight", [1, 2])], {"prompt": "a toy"}, "The prompt “a toy” has no <grooty>"),
        ([("word", ["toy"])], {"prompt": "a cat"}, "The prompt “a cat” has no <grooty>"),
        ([("training_step", [10, 60])], {}, "Step 60 was not kept"),
        ([("prompt", ["a {}", "a <groty>"])], {}, "<groty>, which was not learned"),
        ([("seed", range(30)), ("guidance", range(30))], {}, "900 pictures"),
        ([("seed", [1])], {"sampler": "DDIM"}, "sampler: there is no such setting"),
        ([("seed", [1])], {"weight": -1}, "weight: give 0.0 or more (you gave -1)"),
        ([("seed", [1])], {"columns": -2}, "columns: give 0 or more (you gave -2)"),
        ([("seed", [1])], {"batch_size": -1}, "batch_size: give 0 or more (you gave -1)"),
    ],
)
def test_what_can_not_be_used_is_named_before_anything_is_drawn(
    axes, settings, sentence, miniature, monkeypatch
):
    draws = "helpers.inference.pipeline._draw_batch"
    monkeypatch.setattr(draws, lambda *given, **named: pytest.fail("it draws"))
    with pytest.raises(UserError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        xy_grid(miniature[1], *axes, **settings)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("seed", "0-3, 7", (0, 1, 2, 3, 7)),
        ("guidance", "1, 2.5 4", (1, 2.5, 4)),
        ("training_step", "50, 100; result", (50, 100, None)),
        ("prompt", "a toy, red\n\n a cat ", ("a toy, red", "a cat")),
        ("negative_prompt", "\nblurry", ("", "blurry")),
        ("scheduler", "DPM++ 2M, Euler a", ("DPM++ 2M", "Euler a")),
        ("word", "red toy, <grooty>", ("red toy", "<grooty>")),
    ],
)
def test_values_are_read_as_they_are_typed(name, text, values):
    axis = Axis.typed(name, text)
    assert axis.values == values and Axis.typed(name, axis.text) == axis


@pytest.mark.parametrize("text", ["5-2", "0-100000", "1-"])
def test_a_range_that_is_none_is_named(text):
    with pytest.raises(UserError, match=text):
        Axis.typed("seed", text)


def test_a_bar_over_the_steps_of_all_pictures_ends_where_the_drawing_ends(miniature):
    """Also with the scheduler that takes one step more than it is asked for."""
    _, pipeline = miniature
    counted = []
    bar = type("Bar", (), {"update": lambda self, count: counted.append(count)})()
    for scheduler in SCHEDULERS:
        counted.clear()
        generate(pipeline, "a toy", range(3), steps=3, scheduler=scheduler, batch_size=2, bar=bar)
        assert sum(counted) == 9 and counted[0] == 2


def test_labels_leave_every_pixel_of_the_pictures_as_it_is():
    body = Image.fromarray(np.random.default_rng(0).integers(0, 256, (132 * 2 - 4, 132 * 3 - 4, 3), np.uint8))
    sheet = np.asarray(with_labels(body, ["$x_1$", "a long label " * 9], ["🧊", "日本語", "guidance 2"]))
    pixels = np.asarray(body.convert("RGBA"))
    top, left = (sheet.shape[axis] - pixels.shape[axis] for axis in (0, 1))
    places = [
        (y, x)
        for y in range(top + 1)
        for x in range(left + 1)
        if (sheet[y, x : x + 64] == pixels[0, :64]).all()
    ]
    ((y, x),) = places
    assert (sheet[y : y + pixels.shape[0], x : x + pixels.shape[1]] == pixels).all()
    assert (sheet[:, :x] < 128).any() and (sheet[:y] < 128).any(), "there is something written"


def test_a_plan_without_a_word_draws_what_is_typed():
    pipeline = load_pipeline("miniature")
    plan = make_plan(pipeline, ("seed", [0]), prompt="a photo of a toy")
    assert plan.word is None and plan.cells()[0].prompt == "a photo of a toy"


def test_a_grid_of_the_version_before_is_reopened():
    """It called the hashes `rows`."""
    plan = make_plan(load_pipeline("miniature"), ("seed", [0])).model_copy(
        update={"rows_hashes": {"10": "ab"}}
    )
    old = plan.model_dump_json().replace("rows_hashes", "rows")
    assert GridPlan.model_validate_json(old) == plan


def test_a_longer_word_beside_it_is_left_alone(miniature):
    prompt = "a <grooty>_s, a <grooty> and a <grooty>2"
    plan = make_plan(miniature[1], ("weight", [1.3]), prompt=prompt)
    assert plan.cells()[0].prompt == "a <grooty>_s, a (<grooty>:1.3) and a <grooty>2"
