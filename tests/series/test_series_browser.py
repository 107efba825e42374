"""Notebooks 4, 5 and 6 in JupyterLab, from their first cell to their last, with few steps."""

import re
import shutil

import nbformat
import pytest
from browser import concepts, lab, needs_chromium, page, run_all, shoot, shoot_whole, wait, work
from PIL import Image

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.training.train import train

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def concept(concepts):
    """The concept of the series, with a training of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.ROOT_VARIABLE, str(concepts))
        short = {"max_train_steps": 4, "evaluate_every": 2, "sample_every": 2, "checkpoint_every": 2}
        concept = Concept.make("grooty", initializer_token="toy", training=short)
        concept.save()
        shutil.copytree(places.data_folder() / "grooty", concept.images_folder)
        yield concept


@pytest.fixture
def learned(concept):
    """What the test of notebook 4 has learned; where that was not run, it is learned here."""
    train(concept)
    return concept


def test_notebook_4_trains_and_shows_how(lab, page, concept):
    run_all(lab, page, "4_training")
    page.get_by_text("step 4 of at most 4").wait_for()
    page.get_by_text("Drawn at step 4", exact=True).wait_for()
    page.get_by_text("grooty: 4 steps in").wait_for()
    for words in (
        "5 pictures, 5 in a row.",
        re.compile(r"^Curves over the steps: fixed loss from .* at step 0 to .* was kept: \d\."),
        "4 samples at each of these steps: 0, 2, 4.",
    ):
        page.get_by_alt_text(words).wait_for()
    page.get_by_text(re.compile(r"the word moved by \d")).wait_for()
    assert all(alt_texts(page))
    shoot_whole(page, "notebook_4")


def test_notebook_5_shows_its_grids(lab, page, work, learned):
    few_steps(work, "5_inference_grids")
    run_all(lab, page, "5_inference_grids")
    for words in (
        "seed in columns",
        "word in rows",
        "guidance in rows",
        "weight in columns",
        "training step",
    ):
        page.get_by_alt_text(re.compile(rf"^\d+ pictures that differ by .*{words}")).first.wait_for()
    assert all(alt_texts(page))
    assert page.get_by_text("the same to the bit: True").count() == 2
    page.get_by_text("The prompt speaks of <grotty>, which was not learned").wait_for()
    shoot_whole(page, "notebook_5")


def test_draw_choose_and_reopen(page, concepts):
    """In the notebook that the test before this one has left open."""
    prompt, alert = page.get_by_label("Prompt", exact=True), page.get_by_role("alert")
    draw = page.get_by_role("button", name="Draw", exact=True)

    prompt.fill("a photo of a (<grooty>:much)")
    draw.click()
    alert.get_by_text("“(<grooty>:much)” has no weight").wait_for()
    assert not list(concepts.glob("grooty/grids/yours/*.png"))

    prompt.fill("a photo of a")
    page.get_by_role("button", name="+ (<grooty>:1.3)").click()
    page.get_by_label("Y axis").select_option("Guidance")
    page.get_by_label("X values").fill("0-1")
    page.get_by_label("Y values").fill("1, 4")
    page.get_by_label("Y values").press("Tab")
    wait(lambda: alert.count() == 0, "the sentence about the weight stays", page)
    draw.click()
    page.get_by_role("button", name="Settings of").nth(3).wait_for()
    assert page.get_by_role("button", name="Settings of").count() == 4
    assert page.get_by_alt_text("guidance 4, seed 1").is_visible()
    (sheet,) = concepts.glob("grooty/grids/yours/*.png")

    page.get_by_text("Saved: grooty/grids/yours/").wait_for()
    first, second = (page.get_by_role("button", name=f"Settings of guidance 4, seed {n}") for n in (0, 1))
    made_with = page.get_by_role("row", name="Prompt a photo of a (<grooty>:1.3)", exact=True)
    wait(lambda: made_with.is_visible() or first.click(), "a click shows no settings", page)
    row = page.get_by_role("row", name="Seed 1", exact=True)
    wait(lambda: row.is_visible() or second.press("Enter"), "Enter shows no settings", page)
    assert page.get_by_role("row", name="Guidance 4", exact=True).is_visible()
    prompt.scroll_into_view_if_needed()
    shoot(page, "grid_form")

    prompt.fill("a toy")
    page.get_by_label("X axis").select_option("Steps")
    wait(lambda: page.get_by_label("X values").input_value() == "5, 10, 25", "no steps to begin with", page)
    page.get_by_role("button", name="Reopen", exact=True).click()
    wait(lambda: prompt.input_value() == "a photo of a (<grooty>:1.3)", "the old prompt is not back", page)
    wait(lambda: page.get_by_label("X values").input_value() == "0, 1", "the old axis is not back", page)
    before = sheet.stat().st_mtime_ns, _pixels(sheet)
    draw.click()
    wait(lambda: sheet.stat().st_mtime_ns != before[0], "it is not drawn again", page)
    page.get_by_text(re.compile(r"Saved: grooty/grids/yours/")).wait_for()
    assert _pixels(sheet) == before[1] and len(list(concepts.glob("grooty/grids/yours/*.png"))) == 1


def test_notebook_6_names_the_files_that_it_made(lab, page, work, learned):
    few_steps(work, "6_web_ui_export")
    run_all(lab, page, "6_web_ui_export")
    files = [path.relative_to(learned.folder) for path in learned.export_folder.glob("*/*")]
    assert len(files) == 5
    for file in files:
        page.get_by_text(f"{file.as_posix()} {(learned.folder / file).stat().st_size} bytes").wait_for()
    assert page.get_by_text("numbers unchanged: True").count()
    assert not page.get_by_text("numbers unchanged: False").count()
    page.get_by_alt_text(
        re.compile("^10 pictures that differ by seed in columns and prompt in rows")
    ).wait_for()
    page.get_by_text("which no Web UI can load.").last.wait_for()
    assert all(alt_texts(page))
    shoot_whole(page, "notebook_6")


def alt_texts(page):
    """What stands in place of each picture, for a screen reader."""
    return page.locator(".jp-OutputArea img").evaluate_all("pictures => pictures.map(one => one.alt)")


def few_steps(work, name):
    """Let a notebook draw in two steps."""
    path = work / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("DRAW_STEPS = 25", "DRAW_STEPS = 2")
    nbformat.write(notebook, path)


def _pixels(path):
    with Image.open(path) as image:
        return image.tobytes()
