"""Notebook 4 in JupyterLab: a training that is watched, stopped, resumed and looked back on."""

import json
import re

import pytest
from browser import (
    KERNELS,
    PATIENT,
    alt_texts,
    button,
    change_notebook,
    end_of,
    errors,
    run_all,
    save,
    says,
    shoot,
    shoot_whole,
    slide_back,
    start,
    wait,
    write_setting,
)

from helpers.training.figures import saved_samples
from helpers.training.records import read_log, request_stop

STEPS = 100_000  # of a training that is stopped on its way: none is so quick or so slow that it ends before
MORE = 20  # steps after that
LOADED = 120  # seconds until a process has imported everything and loaded the model


@pytest.fixture
def lesson(work, grooty):
    """A concept that trains long enough to be stopped, and what of notebook 4 trains it or looks at it."""
    training = {"max_train_steps": STEPS, "stop_when_learned": False, "train_batch_size": 1}
    concept = grooty.changed(training={**training, "sample_every": MORE, "checkpoint_every": 40})
    concept.save()
    cells = ["CONCEPT =", "Concept.load", "LiveTraining("]
    change_notebook(work, "4_training", "look", cells)
    change_notebook(work, "4_training", "train", [*cells, "notebook_launcher("])
    yield concept
    if concept.training_folder.is_dir():  # no run shall outlive a test that failed
        request_stop(concept.training_folder)


@pytest.fixture
def without_subshells(work):
    """JupyterLab sends what is pressed to the shell that runs the cells, as other programs do."""
    write_setting(work, KERNELS, {**PATIENT, "commsOverSubshells": "disabled"})
    yield
    write_setting(work, KERNELS, PATIENT)


def test_a_training_is_stopped_survives_a_reload_and_goes_on(lab, page, lesson):
    concept = lesson
    start(lab, page, "train")
    is_seen_running(page)
    page.get_by_alt_text(re.compile(r"step \d+: a photo of a <grooty>")).first.wait_for()
    page.get_by_alt_text(re.compile("length of each row <grooty>")).wait_for()
    button(page, "Stop").click()
    stopped = was_stopped(page, concept)
    assert stopped < STEPS and concept.embeds_path.is_file()
    end_of(page)
    save(page)
    shoot(page, "training_stopped")

    page.reload()
    page.get_by_text(f"step {stopped} of at most {STEPS}").wait_for()
    button(page, "Resume").click()
    says(page, f"Goes on from step {stopped}.", LOADED)
    start(lab, page, "look")  # a second notebook, with a kernel of its own
    is_seen_running(page)
    button(page, "Stop").click()
    again = was_stopped(page, concept)
    assert stopped < again < STEPS

    last = end_after(concept, again + MORE)
    button(page, "Resume").click()
    says(page, "It reached max_train_steps.", LOADED)
    wait(lambda: outcome(concept)["ended"] == "ceiling", "it does not end", page)  # it draws its result first
    steps = [line["step"] for line in read_log(concept.training_folder) if "loss" in line]
    assert steps == list(range(1, last + 1))
    *_, before, newest = saved_samples(concept)
    page.get_by_text(f"Drawn at step {newest}", exact=True).wait_for()
    slide_back(page, "Step")
    page.get_by_text(f"Drawn at step {before}", exact=True).wait_for()
    shoot(page, "training_ended")


def test_without_subshells_the_kernels_interrupt_stops_a_training(lab, page, lesson, without_subshells):
    """The button waits for the cell there, as the view says; it must not spoil the run that goes on."""
    concept = lesson
    start(lab, page, "train")
    is_seen_running(page)
    button(page, "Stop").click()
    for _ in range(2):
        shown = step_shown(page)
        wait(lambda shown=shown: step_shown(page) > shown, "it was heard, or it hangs", page)
    page.get_by_text("press the kernel's ■ instead").wait_for()
    page.locator("[data-command='notebook:interrupt-kernel']").click()
    stopped = was_stopped(page, concept)

    button(page, "Resume").click()  # in a process of its own, so that the kernel hears
    says(page, f"Goes on from step {stopped}.", LOADED)
    wait(lambda: step_shown(page) > stopped, "it does not go on", page)
    button(page, "Stop").click()
    assert was_stopped(page, concept) > stopped


def test_notebook_4_trains_and_shows_how(lab, page, grooty):
    run_all(lab, page, "4_training")
    page.get_by_text("step 4 of at most 4").wait_for()
    page.get_by_text("Drawn at step 4", exact=True).wait_for()
    page.get_by_text("grooty: 4 steps in").wait_for()
    for words in (
        "5 pictures, 5 in a row.",
        re.compile(r"^Curves over the steps: fixed loss from .* at step 0 to .* was kept: \d\."),
        "4 samples at each of these steps: 0, 1, 2, 4.",
    ):
        page.get_by_alt_text(words).wait_for()
    page.get_by_text(re.compile(r"the word moved by \d")).wait_for()
    assert all(alt_texts(page))
    shoot_whole(page, "notebook_4")


def is_seen_running(page):
    seen = page.get_by_text(re.compile(rf"step [1-9]\d* of at most {STEPS} · .* left"))
    wait(lambda: seen.count() or errors(page), "no step is seen", page, LOADED)
    assert not errors(page)


def step_shown(page):
    words = page.get_by_text(re.compile(rf"step \d+ of at most {STEPS}")).inner_text()
    return int(re.search(r"step (\d+)", words)[1])


def was_stopped(page, concept):
    """Wait until the page says so; the step at which the run ended."""
    says(page, "It was stopped: run it again to go on.", LOADED)
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
