"""What a training will need: counted and measured, never guessed, and without touching a GPU."""

import json
import sys

import pytest
import torch

from helpers.common.errors import UserError
from helpers.model.base_model import load_components, load_shapes
from helpers.training import forecast as machine
from helpers.training import memory
from helpers.training.control import state_of
from helpers.training.forecast import (
    Estimate,
    Machine,
    Pace,
    estimate,
    known_pace,
    measure_pace,
    this_machine,
)
from helpers.training.train import train


@pytest.fixture
def tiny(grooty, families):
    """The concept on a model of random weights that a step takes no time on."""
    return grooty.changed(base_model=str(families["sd1"]), training={"resolution": 64})


@pytest.fixture
def asked(monkeypatch):
    """Pretends to be a machine with a GPU whose driver answers a line; CUDA itself would fail."""

    def answer(line):
        monkeypatch.setattr(machine, "is_cuda_available", lambda: True)
        monkeypatch.setattr(machine, "_nvidia_smi", lambda: line)
        return this_machine.__wrapped__()

    return answer


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shapes_count_the_same_as_weights(families, grooty, family):
    shapes, weights = load_shapes(str(families[family])), load_components(str(families[family]))
    assert all(tensor.is_meta for tensor in shapes.unet.parameters())
    counted, read = (memory.forecast(one, grooty.training, 64, torch.float32) for one in (shapes, weights))
    assert counted == read


def test_without_a_gpu_the_processor_s_memory_counts(tiny):
    here = estimate(tiny)
    assert not here.machine.is_gpu and "processor cores" in str(here) and "GiB" in str(here)


def test_a_gpu_is_known_by_its_driver_alone(asked):
    t4, h200 = asked("Tesla T4, 15360, 7.5"), asked("NVIDIA H200, 143771, 9.0")
    assert (t4.name, t4.memory, t4.dtype("auto")) == ("Tesla T4", 15360 * 2**20, torch.float16)
    assert h200.dtype("auto") == torch.bfloat16 and h200.dtype("fp16") == torch.float16
    assert asked("NVIDIA B200, 183359, 10.0").has_bfloat16
    assert asked("").memory is None
    assert not torch.cuda.is_initialized()


def test_more_than_there_is_comes_with_what_to_set():
    needs = memory.Forecast(weights=4 * 2**30, activations=2**30)
    few, many = (str(Estimate(Machine("a GPU", size * 2**30, True), needs, None, None)) for size in (4, 8))
    assert "about 5.00 of 4.0 GiB" in few and "set gradient_checkpointing" in few
    assert "more than there is" not in many


def test_the_time_is_steps_and_looks_times_their_pace(grooty):
    grooty.training.max_train_steps, grooty.training.evaluate_every = 100, 25
    assert Pace(step=0.5, look=2.0, source="measured").seconds(grooty) == 100 * 0.5 + 5 * 2.0


def test_steps_are_measured_in_a_process_of_their_own_and_nothing_else_is_left(tiny):
    tiny.save()
    before = {path.name for path in tiny.folder.rglob("*")}
    assert known_pace(tiny) is None and estimate(tiny).seconds is None
    pace = measure_pace(tiny)
    assert pace.step > 0 and pace.look > 0
    assert {path.name for path in tiny.folder.rglob("*")} - before == {"pace.json"}
    assert known_pace(tiny) == pace and "(measured)" in str(estimate(tiny))
    assert known_pace(tiny.changed(training={"max_train_steps": 7})) == pace
    assert known_pace(tiny.changed(training={"train_batch_size": 2})) is None


def test_a_pace_of_another_machine_does_not_count(tiny, monkeypatch):
    tiny.folder.mkdir(exist_ok=True)
    under = {"machine": "a faster one"}
    (tiny.folder / "pace.json").write_text(json.dumps({"under": under, "pace": {"step": 1}}))
    assert known_pace(tiny) is None


def test_what_keeps_a_training_from_beginning_is_said(tiny, monkeypatch):
    with pytest.raises(UserError, match=r"set vectors to \d"):
        measure_pace(tiny.changed(initializer_token="a b c d e f"))
    for path in tiny.images_folder.iterdir():
        path.unlink()
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(UserError, match="no pictures yet"):
        measure_pace(tiny)


def test_a_run_leaves_its_pace(tiny):
    concept = tiny.changed(training={"max_train_steps": 4, "sample_every": 0})
    train(concept)
    pace = known_pace(concept)
    assert pace.source == "as in its last run" and pace.step > 0 and pace.look == 0
    assert known_pace(concept.changed(training={"train_batch_size": 1})) is None
    assert state_of(concept, []) in ("learned", "ceiling"), "the note is no part of the run"
