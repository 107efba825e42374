"""The view of a training that runs: it reads files, its buttons make one or start a process."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from helpers.common import places
from helpers.common.files import holder, locked, write_json
from helpers.training import records as resuming
from helpers.training.figures import curves_of, plot_curves
from helpers.training.records import (
    INPUTS_FILE,
    Log,
    RunSummary,
    logged,
    read_log,
    request_stop,
    state_of,
    steps_per_second,
    stop_requested,
)
from helpers.training.train import train
from helpers.widgets import live

_REASONS = {"ceiling": "It reached max_train_steps.", "stopped": "It was stopped: run it again to go on."}


@pytest.fixture
def view(monkeypatch):
    """Makes views; their threads end with the test."""
    monkeypatch.setattr(live, "_EVERY", 0.05)
    made = []

    def make(concept):
        made.append(live.LiveTraining(concept))
        return made[-1]

    yield make
    for one in made:
        one.close()


_holds = contextlib.ExitStack()  # the lock of a run in progress


@pytest.fixture
def running(grooty):
    """A concept with a run in progress, as its folder shows it."""
    with _holds:
        begin(grooty)
        yield grooty


def begin(concept):
    _holds.enter_context(locked(concept.lock_path, "{}"))
    write_json(concept.training_folder / INPUTS_FILE, {})
    log = Log(concept.training_folder, 0)
    log.write(0, fixed_loss=0.08)
    log.write(1, norm=1.0, seconds=10.0)
    log.write(2, norm=1.25, seconds=10.5)
    log.write(2, fixed_loss=0.07)
    log.close()


@pytest.fixture
def stopped(grooty, families):
    """A concept on a tiny model of random weights, stopped after its second step of four."""
    training = {"resolution": 64, "sample_every": 2}
    concept = grooty.changed(base_model=str(families["sd1"]), training=training)

    def scorer(concept, model):
        if len(read_log(concept.training_folder)) > 3:
            request_stop(concept.training_folder)
        return 1.0

    assert train(concept, scorer=scorer).ended == "stopped"
    yield concept
    request_stop(concept.training_folder)  # no run shall outlive a test that failed


def end(concept, how="ceiling", step=2):
    log = Log(concept.training_folder, step)
    log.write(step, event=_REASONS[how])
    log.close()
    RunSummary(concept.name, how, _REASONS[how], step, step, 1.0, 0.08, 0.07).save(concept.training_folder)
    _holds.close()


def draw_sample(concept, step, colour):
    folder = concept.training_folder / "samples"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (4 * 8 + 3 * 4, 8), colour).save(folder / f"{step:05d}.png")


def wait_until(is_so):
    deadline = time.monotonic() + 240
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_so()


def captions(view):
    return [page.value.split("figcaption>")[1].rstrip("</") for page in view.samples.stack.children]


def test_shows_progress_pace_and_time_left(running, view):
    shown = view(running)
    assert (shown.bar.value, shown.bar.max) == (2, 4)
    for words in ("step 2 of at most 4", "2.0 steps a second", "at most 00:01 left", "0.0700", "1.25"):
        assert words in shown.words.value


def test_the_pace_leaves_out_the_time_between_two_sittings():
    lines = [{"step": step, "seconds": 1.0 * step} for step in range(10)]
    lines += [{"step": 9, "event": "Goes on from step 9."}]
    assert steps_per_second(lines) is None
    lines += [{"step": step, "seconds": 500 + 0.25 * step} for step in range(10, 15)]
    assert steps_per_second(lines) == 4.0


def test_the_curves_say_what_they_show(running, view):
    drawn = view(running).curves.value
    assert drawn.count("<img") == 1
    assert "fixed loss from 0.0800 at step 0 to 0.0700 at step 2" in drawn
    assert "length of each row from 1.0000 at step 1 to 1.2500 at step 2" in drawn


def a_run(steps):
    return list(range(steps)), [1 / (1 + step) for step in range(steps)]


def test_a_long_run_makes_no_long_curve():
    drawn = plot_curves({"norm": {"": a_run(50_000)}})
    assert len(drawn.as_html()) < 20_000 and "at step 49999" in drawn.alt
    assert plot_curves({"x": {"": ([1, 2], [0.5, float("nan")])}}).alt.endswith("to nan at step 2.")


def test_the_curves_are_drawn_seldom_while_a_run_goes_on_and_once_more_at_its_end(running, view, monkeypatch):
    drawn = []
    monkeypatch.setattr(live, "_REST", 1e9)
    monkeypatch.setattr(live, "_curves", lambda concept, lines: drawn.append(lines) or f"{len(lines)} lines")
    shown = view(running)
    log = Log(running.training_folder, 2)
    log.write(3, norm=1.3, seconds=11.0)
    log.close()
    wait_until(lambda: shown.bar.value == 3)
    assert len(drawn) == 1
    end(running, step=3)
    wait_until(lambda: shown.bar.bar_style == "success")
    assert len(drawn) == 2 and shown.curves.value == f"{len(drawn[-1])} lines"


def test_the_slider_follows_the_newest_until_it_is_moved(running, view):
    draw_sample(running, 0, "red")
    draw_sample(running, 2, "green")
    shown = view(running)
    slider, stack = shown.samples.slider, shown.samples.stack
    assert captions(shown) == ["Drawn at step 0", "Drawn at step 2"] and stack.selected_index == 1
    assert (
        stack.children[0].value.count("<img") == 4
        and "a photo of a &lt;grooty&gt;" in stack.children[0].value
    )
    draw_sample(running, 4, "blue")
    wait_until(lambda: slider.value == 4 and stack.selected_index == 2)
    slider.value = 2
    assert stack.selected_index == 1
    draw_sample(running, 6, "black")
    wait_until(lambda: len(stack.children) == 4 and slider.value == 2 and stack.selected_index == 1)
    slider.value = 6
    draw_sample(running, 8, "white")
    wait_until(lambda: slider.value == 8 and stack.selected_index == 4)


def test_a_run_that_starts_over_has_its_own_samples_only(running, view):
    for step in (0, 2, 4):
        draw_sample(running, step, "red")
    shown = view(running)
    running.training_folder.rename(running.folder / "training-1")
    running.training_folder.mkdir()
    draw_sample(running, 0, "blue")
    wait_until(lambda: captions(shown) == ["Drawn at step 0"])
    wait_until(lambda: shown.samples.stack.selected_index == 0 and shown.curves.value == "")


def test_the_own_pictures_are_there_by_name(grooty, view):
    shown = view(grooty).pictures.value
    assert shown.count("<img") == len(list(grooty.images_folder.iterdir())) and 'alt="' in shown


def test_an_empty_folder_is_no_error(concepts, grooty, view):
    for path in grooty.images_folder.iterdir():
        path.unlink()
    shown = view(grooty)
    assert "Nothing has been logged" in shown.words.value
    assert shown.pictures.value == "" and shown.resume.disabled


def test_the_button_makes_the_stop_file(running, view):
    shown = view(running)
    assert shown.resume.disabled
    shown.stop.click()
    assert stop_requested(running.training_folder)


def test_a_full_disk_is_said_by_both_buttons(running, view, monkeypatch):
    def refuse(*given, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shown = view(running)
    for place, name, button in ((Path, "touch", shown.stop), (resuming.subprocess, "Popen", shown.resume)):
        shown.message.value = ""
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            button.click()
        assert "No space left on device" in shown.message.value
        end(running, "stopped")
        wait_until(lambda: not shown.resume.disabled)


def test_it_looks_on_until_the_run_has_ended(running, view):
    shown = view(running)
    assert not shown.has_ended()
    end(running)
    wait_until(lambda: shown.bar.bar_style == "success")
    assert "It reached max_train_steps." in shown.words.value
    assert shown.has_ended() and shown.resume.disabled


def test_a_batch_run_is_not_kept_alive(running):
    code = (
        "from helpers.concept.concept import Concept\nfrom helpers.widgets.live import LiveTraining\n"
        "view = LiveTraining(Concept.load('grooty'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=places.repository_folder(), check=True, timeout=60)


def test_after_the_end_it_shows_the_same(running, view):
    before = view(running)
    draw_sample(running, 2, "red")
    end(running)
    wait_until(lambda: "It reached" in before.words.value and before.samples.stack.children)
    anew = view(running)
    assert anew.curves.value == before.curves.value != ""
    assert captions(anew) == captions(before)
    assert anew.words.value == before.words.value


def test_half_a_line_of_the_log_waits_for_its_end(running):
    folder = running.training_folder
    before = read_log(folder)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "norm"')
        file.flush()
        assert read_log(folder) == before
        file.write(': 1.5}\n{"step": 4, "norm": 1.75}\n')
    assert logged(read_log(folder), "norm")[1][-2:] == [1.5, 1.75]
    Log(folder, 1).close()
    assert len(read_log(folder)) == 2


def test_resume_goes_on_with_a_stopped_run_once(stopped, view):
    shown = view(stopped)
    assert not shown.resume.disabled and shown.bar.bar_style == "warning"
    at = shown.bar.value
    shown.resume.click()
    process = (stopped.training_folder / "resume.json").read_text()
    assert shown.resume.disabled and shown.stop.disabled
    shown.resume.click()
    view(stopped).resume.click()
    assert (stopped.training_folder / "resume.json").read_text() == process
    output = stopped.training_folder / "resume.log"
    wait_until(lambda: "grooty: 4 steps" in output.read_text())
    wait_until(lambda: shown.bar.bar_style == "success" and captions(shown)[-1] == "Drawn at step 4")
    steps = logged(read_log(stopped.training_folder), "loss")[0]
    assert at < 4 and steps == [1, 2, 3, 4] and RunSummary.load(stopped).ended == "ceiling"
    assert any(line.get("event") == f"Goes on from step {at}." for line in read_log(stopped.training_folder))
    assert "It reached max_train_steps." in shown.words.value and shown.resume.disabled


def test_a_length_that_another_notebook_changed_is_shown_once_the_run_goes_on(running, view):
    end(running, "stopped")
    shown = view(running)
    assert "of at most 4" in shown.words.value
    running.changed(training={"max_train_steps": 40}).save()
    begin(running)
    wait_until(lambda: "of at most 40" in shown.words.value)
    assert shown.bar.max == 40


def test_a_run_that_cannot_go_on_says_why(running, view):
    end(running, "stopped")
    for path in running.images_folder.iterdir():
        path.unlink()
    shown = view(running)
    shown.resume.click()
    wait_until(lambda: "has no pictures yet" in shown.message.value)
    assert not shown.resume.disabled and "has no pictures yet" in view(running).message.value


def test_after_a_resumed_run_all_is_told_again_and_a_page_that_was_reloaded_hears_what_to_do(
    running, view, monkeypatch
):
    told = []
    monkeypatch.setattr(live, "display", lambda shown, display_id: SimpleNamespace(update=told.append))
    monkeypatch.setattr(resuming.sys, "executable", "true")
    end(running, "stopped")
    shown = view(running)
    shown.tell(RunSummary.load)
    shown.resume.click()
    begin(running)
    end(running)
    wait_until(lambda: "reloaded this page, run the cells below again" in shown.message.value)
    assert [summary.ended for summary in told] == ["ceiling"]


def test_a_run_that_another_kernel_resumes_is_starting_though_one_of_ours_has_ended(running, monkeypatch):
    end(running, "stopped")
    monkeypatch.setattr(resuming.sys, "executable", "true")
    resuming.resume(running)
    wait_until(lambda: state_of(running, []) == "broken")
    write_json(running.training_folder / "resume.json", {"pid": 1})
    assert state_of(running, []) == "starting"


def test_a_killed_process_is_named(running, monkeypatch, view):
    end(running, "stopped")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    real = subprocess.Popen
    monkeypatch.setattr(
        resuming.subprocess, "Popen", lambda command, **how: real([sys.executable, "-c", code], **how)
    )
    shown = view(running)
    shown.resume.click()
    wait_until(lambda: "was killed (signal 9)" in shown.message.value)


def test_several_processes_are_stopped_and_gone_on_with_from_the_view(stopped, view, monkeypatch):
    monkeypatch.setattr(resuming.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "yes")
    concept = stopped.changed(training={"num_processes": 2, "max_train_steps": 100_000, "sample_every": 0})
    concept.save()
    shown = view(concept)
    at = shown.bar.value
    shown.resume.click()
    wait_until(lambda: shown.bar.value > at)
    shown.stop.click()
    wait_until(lambda: shown.bar.bar_style == "warning")
    summary = RunSummary.load(concept)
    assert summary.ended == "stopped" and at < summary.steps < 100_000
    steps = logged(read_log(concept.training_folder), "loss")[0]
    assert steps == list(range(1, summary.steps + 1)), "only one of the processes writes"
    wait_until(lambda: not holder(concept.lock_path))


def test_the_sentence_is_told_from_the_launchers_remarks(running):
    (running.training_folder / "resume.log").write_text(
        "Loading\nThe concept “grooty” has no pictures yet.\n"
        "E1125 17:00:00.1 12 api.py:1] failed (exitcode: 1)\nTraceback\n=====\n"
    )
    assert resuming.last_output(running.training_folder) == "The concept “grooty” has no pictures yet."


def test_each_row_has_a_curve_and_its_name(running, view):
    log = Log(running.training_folder, 2)
    log.write(3, norm=1.5, norms=[1.0, 2.0])
    log.write(4, norm=1.75, norms=[1.25, 2.25])
    log.close()
    panels = curves_of(running, read_log(running.training_folder))
    assert list(panels["length of each row"]) == ["<grooty>", "<grooty>_1"]
    said = view(running).curves.value
    assert "length of each row &lt;grooty&gt;_1 from 2.0000 at step 3 to 2.2500 at step 4" in said


def test_a_stopped_run_that_was_begun_again_elsewhere_is_not_resumed(running):
    end(running, "stopped")
    lines = read_log(running.training_folder)
    assert state_of(running, lines) == "stopped"
    begin(running)
    assert state_of(running, lines) == "running"


def test_a_run_that_was_killed_says_so_and_can_go_on(running, view):
    """Whether it was loading or taking steps: its lock is free, and it left no outcome."""
    shown = view(running)
    assert not shown.stop.disabled and shown.resume.disabled
    _holds.close()
    wait_until(lambda: not shown.resume.disabled)
    assert "ended in the middle" in shown.message.value and shown.stop.disabled
    assert "left" not in shown.words.value, "a time for a run that is none"
    begin(running)
    wait_until(lambda: not shown.stop.disabled and shown.resume.disabled)


def test_a_run_that_begins_is_seen_though_the_disk_has_another_clock(running, view):
    then = time.time() - 5
    for path in (running.training_folder / INPUTS_FILE, running.lock_path.with_suffix(".lock.json")):
        os.utime(path, (then, then))
    assert state_of(running, []) == "running" and not view(running).stop.disabled
