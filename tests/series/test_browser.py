"""The notebooks in JupyterLab, as a person uses them: open, run, change a widget, look at the result."""

import json
import re
import shutil

import numpy as np
import pytest
from browser import (
    KERNELS,
    PATIENT,
    button,
    concepts,
    cut_notebook,
    lab,
    move,
    needs_chromium,
    page,
    ran,
    run_all,
    save,
    shoot,
    shoot_whole,
    slide_back,
    start,
    wait,
    work,
    write_setting,
)
from PIL import Image

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.training.control import request_stop
from helpers.training.records import read_log

STEPS = 100_000  # of a training that is stopped on its way: none is so quick or so slow that it ends before
MORE = 20  # steps after that
pytestmark = needs_chromium

_DROP = """async (addresses) => {
  const files = new DataTransfer();
  for (const address of addresses) {
    const data = await (await fetch(address)).blob();
    files.items.add(new File([data], address.split("/").pop()));
  }
  const area = document.querySelector(".drop-area");
  for (const kind of ["dragover", "drop"]) {
    area.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture
def lesson(work, concepts, monkeypatch):
    """Makes a concept that trains long enough to be stopped, and copies of notebook 4 for it.

    The first is cut after the launch, the second after the view.
    """
    monkeypatch.setenv(places.ROOT_VARIABLE, str(concepts))
    made = []

    def make(name):
        training = {"max_train_steps": STEPS, "stop_when_learned": False, "train_batch_size": 1}
        concept = Concept.make(name, training={**training, "sample_every": MORE, "checkpoint_every": 40})
        concept.save()
        shutil.copytree(places.data_folder() / "grooty", concept.images_folder)
        for copy, last in (("train", "notebook_launcher"), ("look", "LiveTraining")):
            cut_notebook(work, "4_training", name, last).rename(work / "notebooks" / f"{copy}_{name}.ipynb")
        made.append(concept)
        return concept

    yield make
    for concept in made:  # no run shall outlive a test that failed
        if concept.training_folder.is_dir():
            request_stop(concept.training_folder)


@pytest.fixture
def without_subshells(work):
    """JupyterLab sends what is pressed to the shell that runs the cells, as other programs do."""
    write_setting(work, KERNELS, {**PATIENT, "commsOverSubshells": "disabled"})
    yield
    write_setting(work, KERNELS, PATIENT)


def test_a_training_is_stopped_survives_a_reload_and_goes_on(lab, page, lesson):
    concept = lesson("walker")
    start(lab, page, "train_walker")
    is_seen_running(page)
    page.get_by_alt_text(re.compile(r"step \d+: a photo of a <walker>")).first.wait_for()
    page.get_by_role("img", name=re.compile("Length of each row <walker>")).wait_for()
    button(page, "Stop").click()
    stopped = was_stopped(page, concept)
    assert stopped < STEPS and concept.embeds_path.is_file()
    wait(lambda: ran(page), "the cell does not end", page)
    save(page)
    shoot(page, "training_stopped")

    page.reload()
    page.get_by_text(f"step {stopped} of at most {STEPS}").wait_for()
    button(page, "Resume").click()
    page.get_by_text(f"Goes on from step {stopped}.").wait_for()
    start(lab, page, "look_walker")  # a second notebook, with a kernel of its own
    is_seen_running(page)
    button(page, "Stop").click()
    again = was_stopped(page, concept)
    assert stopped < again < STEPS

    last = end_after(concept, again + MORE)
    button(page, "Resume").click()
    page.get_by_text("It reached max_train_steps.").wait_for()
    steps = [line["step"] for line in read_log(concept.training_folder) if "loss" in line]
    assert steps == list(range(1, last + 1)) and outcome(concept)["ended"] == "ceiling"
    newest = last - last % MORE
    page.get_by_text(f"Drawn at step {newest}", exact=True).wait_for()
    slide_back(page, "Step")
    page.get_by_text(f"Drawn at step {newest - MORE}", exact=True).wait_for()
    shoot(page, "training_ended")


def test_without_subshells_the_kernels_interrupt_stops_a_training(lab, page, lesson, without_subshells):
    """The button waits for the cell there, as the view says; it must not spoil the run that goes on."""
    concept = lesson("plodder")
    start(lab, page, "train_plodder")
    is_seen_running(page)
    button(page, "Stop").click()
    for _ in range(2):
        shown = step_shown(page)
        wait(lambda shown=shown: step_shown(page) > shown, "it was heard, or it hangs", page)
    page.get_by_text("press the kernel's ■ instead").wait_for()
    page.locator("[data-command='notebook:interrupt-kernel']").click()
    stopped = was_stopped(page, concept)

    button(page, "Resume").click()  # in a process of its own, so that the kernel hears
    page.get_by_text(f"Goes on from step {stopped}.").wait_for()
    wait(lambda: step_shown(page) > stopped, "it does not go on", page)
    button(page, "Stop").click()
    assert was_stopped(page, concept) > stopped


def test_a_concept_is_renamed_deleted_and_brought_back_by_its_buttons(lab, page, lesson, concepts):
    lesson("tidy")
    run_all(lab, page, "0_start_here")
    shoot_whole(page, "notebook_0")
    card = page.locator(".widget-vbox .widget-vbox", has_text="tidy").last
    card.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_label("Name", exact=True).fill("two words")
    page.get_by_role("button", name="Rename it").click()
    page.get_by_text("use letters, digits, - and _ only").wait_for()
    page.get_by_label("Name", exact=True).fill("neat")
    wait(lambda: page.get_by_label("Word", exact=True).input_value() == "<neat>", "the word stays", page)
    page.get_by_role("button", name="Rename it").click()
    page.get_by_text("tidy is neat now, and its word <neat>.").wait_for()
    assert json.loads((concepts / "neat" / "concept.json").read_text())["placeholder_token"] == "<neat>"
    shoot(page, "start_here")
    card = page.locator(".widget-vbox .widget-vbox", has_text="neat").last
    card.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Delete neat, 5 picture(s)").last.wait_for()
    assert (concepts / "neat").is_dir()
    page.get_by_role("button", name="Delete it").click()
    wait(lambda: not (concepts / "neat").exists(), "it is still there", page)
    page.get_by_role("button", name="Bring back neat").click()
    wait(lambda: (concepts / "neat" / "concept.json").is_file(), "it does not come back", page)
    card.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("link", name="3_dataset_preview.ipynb").last.click()
    page.get_by_role("tab", name=re.compile("3_dataset_preview")).wait_for()


def test_a_picture_is_removed_by_its_button(lab, page, concepts):
    run_all(lab, page, "1_download_images")
    shoot_whole(page, "notebook_1")
    images = concepts / "grooty" / "images"
    kept = sorted(path.name for path in images.iterdir())
    assert len(kept) == 5
    page.get_by_role("button", name="Remove").first.click()
    wait(lambda: len(list(images.iterdir())) == 4, "the picture is still there")
    wait(lambda: page.get_by_role("button", name="Remove").count() == 4, "it is still shown", page)


def test_dropped_files_become_pictures(lab, page, concepts):
    """In the notebook that the test before this one has left open; one file takes several messages."""
    images = concepts / "grooty" / "images"
    kept = {path.name for path in images.iterdir()}
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    files = {"noise.png": noise, "tall.png": np.full((90, 64, 3), 200, np.uint8)}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(concepts.parent / name)
    assert (concepts.parent / "noise.png").stat().st_size > 4 * 2**20
    page.evaluate(_DROP, [f"{lab}/files/{name}" for name in files])
    page.get_by_text("2 kept.", exact=True).wait_for()
    new = {path.name for path in images.iterdir()} - kept
    assert len(new) == 2
    assert any((np.asarray(Image.open(images / name)).shape == noise.shape) for name in new)
    shoot(page, "dropped")


def test_a_changed_setting_is_in_the_concept_file(lab, page, concepts):
    run_all(lab, page, "2_concept_settings")
    shoot_whole(page, "notebook_2")
    settings = concepts / "grooty" / "concept.json"
    assert json.loads(settings.read_text())["initializer_token"] == "toy"
    field = page.get_by_label("initializer_token")
    field.fill("robot")
    field.press("Enter")
    page.get_by_role("button", name="Save", exact=True).click()
    wait(
        lambda: json.loads(settings.read_text())["initializer_token"] == "robot",
        "concept.json keeps the old word",
    )


def test_a_bad_value_is_marked_while_it_is_typed(lab, page, concepts):
    """In the notebook that the test before this one has left open: no Enter is pressed, no field is left."""
    settings = concepts / "grooty" / "concept.json"
    field, row = page.get_by_label("vectors"), page.locator(".widget-hbox", has=page.get_by_label("vectors"))
    field.fill("")
    field.press_sequentially("2x")
    row.get_by_role("alert").filter(has_text="vectors").wait_for()
    assert field.evaluate("field => field === document.activeElement")
    field.press("Backspace")
    row.get_by_role("alert").wait_for(state="detached")
    row.get_by_text("rows of numbers for the word").wait_for()
    word = page.get_by_label("initializer_token")
    word.fill("")
    word.press_sequentially("robotic")
    page.get_by_text("Words of one token near “robotic”: robot").wait_for()
    word.press("Backspace")
    word.press("Backspace")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved: grooty/concept.json.", exact=True).wait_for()
    assert json.loads(settings.read_text())["initializer_token"] == "robot"
    field.fill("2x")
    row.get_by_role("alert").filter(has_text="vectors").wait_for()
    shoot(page, "bad_value")


def test_a_caption_is_kept_over_a_reload_and_a_new_kernel(lab, page, concepts):
    images = concepts / "grooty" / "images"
    second = sorted(images.glob("*.png"))[1]
    run_all(lab, page, "3_dataset_preview")
    shoot_whole(page, "notebook_3")
    move(page, "Picture")
    page.get_by_alt_text(f"{second.name} as the network sees it", exact=True).wait_for()
    move(page, "Sentence")
    page.get_by_text("a rendering of a <grooty>", exact=True).last.wait_for()
    page.get_by_label("mirrored").check()
    page.get_by_alt_text(f"{second.name} as the network sees it, mirrored").wait_for()
    field = page.get_by_label("Captions")
    field.press_sequentially("a photo of a toy")
    page.get_by_role("alert").filter(has_text="Put {} into “a photo of a toy”").wait_for()
    assert not second.with_suffix(".txt").exists()
    field.press_sequentially(" and {}")
    page.get_by_text(f"Kept in images/{second.stem}.txt.").wait_for()
    assert second.with_suffix(".txt").read_text() == "a photo of a toy and {}\n"
    shoot(page, "captions")
    page.reload()
    run_all(lab, page, "3_dataset_preview", restart=True)
    move(page, "Picture")
    page.get_by_text("a photo of a toy and <grooty>", exact=True).wait_for()
    assert page.get_by_label("Captions").input_value() == "a photo of a toy and {}"


def is_seen_running(page):
    page.get_by_text(re.compile(rf"step [1-9]\d* of at most {STEPS} · .* left")).wait_for()


def step_shown(page):
    words = page.get_by_text(re.compile(rf"step \d+ of at most {STEPS}")).inner_text()
    return int(re.search(r"step (\d+)", words)[1])


def was_stopped(page, concept):
    """Wait until the page says so; the step at which the run ended."""
    page.get_by_text("It was stopped: run it again to go on.").first.wait_for()
    wait(lambda: button(page, "Resume").is_enabled(), "it can't be resumed", page)
    assert outcome(concept)["ended"] == "stopped"
    return outcome(concept)["steps"]


def end_after(concept, steps):
    """Set how long the training shall be; a stopped one may be given another length."""
    concept.training.max_train_steps = steps
    concept.save()
    return steps


def outcome(concept):
    return json.loads((concept.training_folder / "outcome.json").read_text())
