"""The view of a training that runs: it reads files, and its button makes one."""

import time

import pytest
from PIL import Image

from helpers.training.interrupts import stop_requested
from helpers.training.log import Log
from helpers.training.outcome import Outcome
from helpers.widgets import live


@pytest.fixture
def running(grooty, monkeypatch):
    """A concept with a run in progress, as its folder shows it. The view's thread ends with the test."""
    monkeypatch.setattr(live, "_EVERY", 0.05)
    grooty.training_folder.mkdir()
    log = Log(grooty.training_folder, 0)
    log.write(0, fixed_loss=0.08)
    log.write(20, fixed_loss=0.07, norm=1.25)
    yield grooty
    log.close()
    end(grooty)


def end(concept):
    outcome = Outcome(concept.name, "ceiling", "It reached max_train_steps.", 20, 20, 1.0, 0.08, 0.07)
    outcome.save(concept.training_folder)


def test_shows_the_curve_and_the_latest_samples(running):
    samples = running.training_folder / "samples"
    samples.mkdir()
    for step, colour in ((0, "red"), (20, "blue")):
        Image.new("RGB", (8, 8), colour).save(samples / f"{step:05d}.png")
    curve, strip, _ = live.LiveTraining(running).children
    assert "step 20" in curve.value and "0.0700" in curve.value and "<polyline" in curve.value
    assert strip.value == (samples / "00020.png").read_bytes()


def test_an_empty_folder_is_no_error(grooty):
    view = live.LiveTraining(grooty)
    assert "Nothing has been logged" in view.children[0].value
    grooty.training_folder.mkdir()
    end(grooty)


def test_the_button_makes_the_stop_file(running):
    view = live.LiveTraining(running)
    button = view.children[2].children[0]
    button.click()
    assert stop_requested(running.training_folder)


def test_it_looks_on_until_the_run_has_ended(running):
    view = live.LiveTraining(running)
    assert not view.has_ended()
    log = Log(running.training_folder, 20)
    log.write(20, event="It reached max_train_steps.")
    log.close()
    end(running)
    deadline = time.monotonic() + 20
    while "It reached" not in view.children[0].value and time.monotonic() < deadline:
        time.sleep(0.05)
    assert view.has_ended() and "It reached max_train_steps." in view.children[0].value
