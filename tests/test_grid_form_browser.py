"""The form of notebook 5 in JupyterLab: a weight mistyped, a grid drawn, chosen from and reopened."""

import re

import nbformat
import pytest
from browser import concepts, lab, needs_chromium, page, run_all, shoot, wait, work
from known_words import known_rows
from PIL import Image

from helpers import places
from helpers.concept import Concept
from helpers.training.result import save_result, save_rows, step_path

CELLS = ("grids-02", "grids-04", "grids-06", "grids-08", "grids-32")  # what the form needs of notebook 5
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def form_notebook(work, concepts):
    """Notebook 5's own cells up to the form, without the grids before it, on a word that means `red toy`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.ROOT_VARIABLE, str(concepts))
        concept = Concept.make("grooty", vectors=2)
        concept.save()
        save_result(concept, known_rows("miniature", "red toy"))
        save_rows(step_path(concept, 10), concept, known_rows("miniature", "green toy"))
    notebook = nbformat.read(work / "notebooks" / "5_inference_grids.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id in CELLS]
    notebook.cells[1].source = notebook.cells[1].source.replace("DRAW_STEPS = 25", "DRAW_STEPS = 2")
    nbformat.write(notebook, work / "notebooks" / "form.ipynb")
    return "form"


def test_draw_choose_and_reopen(lab, page, concepts, form_notebook):
    run_all(lab, page, form_notebook)
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
    page.get_by_role("button", name="Settings of guidance 4, seed 0").click()
    page.get_by_role("row", name="Prompt a photo of a (<grooty>:1.3)", exact=True).wait_for()
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


def _pixels(path):
    with Image.open(path) as image:
        return image.tobytes()
