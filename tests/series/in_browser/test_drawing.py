"""Notebooks 5 and 6 in JupyterLab, with few steps, on a concept that was learned in a few."""

import re

import pytest
from browser import alt_texts, button, change_notebook, run_all, shoot, shoot_whole, shows, type_into
from PIL import Image

from helpers.export.formats import PROGRAMS

DRAWN = 120_000  # milliseconds for four small pictures, which take four seconds
FORM = ("CONCEPT =", "pipeline_with_word(", "examples_for(", "GridForm(")
MADE_WITH = "a photo of a (<grooty>:1.3)"


def test_notebook_5_shows_its_grids(lab, page, work, learned):
    change_notebook(work, "5_inference_grids", DRAW_STEPS=2, SCORED_PICTURES=2)
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
    page.get_by_text("The prompt contains <grotty>, which was not learned").wait_for()
    shoot_whole(page, "notebook_5")


@pytest.fixture
def form(lab, page, work, learned):
    """The form of notebook 5 with the cells that it needs."""
    change_notebook(work, "5_inference_grids", "form", [*FORM, "DRAW_STEPS ="], DRAW_STEPS=2)
    run_all(lab, page, "form")
    return page


def test_draw_choose_and_reopen(form, learned):
    form.get_by_label("Prompt", exact=True).fill("a photo of a (<grooty>:7)")
    button(form, "Draw").click()
    form.get_by_role("alert").get_by_text("The weight in “(<grooty>:7)” can't be used").wait_for()
    assert not sheets_of(learned)

    type_into(form, "Prompt", "a photo of a")
    form.get_by_role("alert").wait_for(state="detached")  # the kernel has read it: a button may add to it
    button(form, "+ (<grooty>:1.3)").click()
    shows(form, "Prompt", MADE_WITH)
    shows(form, "X values", "0, 1, 2, 3")
    form.get_by_label("Y axis").select_option("Guidance")
    shows(form, "Y values", "1, 2, 4, 8")
    type_into(form, "X values", "0-1")
    type_into(form, "Y values", "1, 4")
    button(form, "Draw").click()
    form.get_by_text("Saved: grooty/grids/yours/").wait_for(timeout=DRAWN)
    assert form.get_by_role("button", name="Settings of").count() == 4
    assert form.get_by_alt_text("guidance 4, seed 1").is_visible()
    (sheet,) = sheets_of(learned)

    form.get_by_role("button", name="Settings of guidance 4, seed 0").click()
    form.get_by_role("row", name=f"Prompt {MADE_WITH}", exact=True).wait_for()
    form.get_by_role("button", name="Settings of guidance 4, seed 1").press("Enter")
    form.get_by_role("row", name="Seed 1", exact=True).wait_for()
    assert form.get_by_role("row", name="Guidance 4", exact=True).is_visible()
    form.get_by_label("Prompt", exact=True).scroll_into_view_if_needed()
    shoot(form, "grid_form")

    type_into(form, "Prompt", "a toy")
    form.get_by_label("X axis").select_option("Steps")
    shows(form, "X values", "5, 10, 25")
    button(form, "Reopen").click()
    form.get_by_text("Now Draw makes the same again").wait_for()
    shows(form, "Prompt", MADE_WITH)
    shows(form, "X values", "0, 1")
    before = sheet.stat().st_mtime_ns, _pixels(sheet)
    button(form, "Draw").click()
    form.get_by_text("Saved: grooty/grids/yours/").wait_for(timeout=DRAWN)
    assert sheet.stat().st_mtime_ns != before[0], "it is not drawn again"
    assert _pixels(sheet) == before[1] and sheets_of(learned) == [sheet]


def test_notebook_6_names_the_files_that_it_made(lab, page, work, learned):
    change_notebook(work, "6_web_ui_export", DRAW_STEPS=2)
    run_all(lab, page, "6_web_ui_export")
    files = [path.relative_to(learned.folder) for path in learned.export_folder.glob("*/*.safetensors")]
    assert sorted(file.parent.name for file in files) == sorted(PROGRAMS)
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


def sheets_of(concept):
    return [*concept.grids_folder.glob("yours/*.png")]


def _pixels(path):
    with Image.open(path) as image:
        return image.tobytes()
