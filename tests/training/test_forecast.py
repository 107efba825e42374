"""What a training will need: counted, or known from earlier runs, never guessed; and no GPU is touched."""

import json

import pytest
import torch

from helpers.common.files import write_json
from helpers.model.base_model import load_components, load_shapes
from helpers.training import forecast
from helpers.training.control import state_of
from helpers.training.forecast import (
    estimate,
    memory_needed,
    seconds_per_step,
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
        monkeypatch.setattr(forecast, "is_cuda_available", lambda: True)
        monkeypatch.setattr(forecast, "_nvidia_smi", lambda: line)
        return this_machine.__wrapped__()

    return answer


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shapes_count_the_same_as_weights(families, grooty, family):
    shapes, weights = load_shapes(str(families[family])), load_components(str(families[family]))
    assert all(tensor.is_meta for tensor in shapes.unet.parameters())
    counted, read = (memory_needed(one, grooty.training, 64, torch.float32) for one in (shapes, weights))
    assert counted == read


def test_without_a_gpu_the_processor_s_memory_counts(tiny):
    here = estimate(tiny)
    assert this_machine().capability is None and "processor cores" in here and "GiB" in here


def test_a_gpu_is_known_by_its_driver_alone(asked):
    t4, h200 = asked("Tesla T4, 15360, 7.5"), asked("NVIDIA H200, 143771, 9.0")
    assert (t4.name, t4.memory, t4.dtype("auto")) == ("Tesla T4", 15360 * 2**20, torch.float16)
    assert h200.dtype("auto") == torch.bfloat16 and h200.dtype("fp16") == torch.float16
    assert asked("NVIDIA B200, 183359, 10.0").dtype("auto") == torch.bfloat16
    assert asked("").memory is None and asked("").dtype("auto") == torch.float16
    assert not torch.cuda.is_initialized()


def test_a_run_tells_the_time_of_the_next_one_like_it_of_any_concept(tiny):
    assert seconds_per_step(tiny) is None and "Time: not known" in estimate(tiny)
    concept = tiny.changed(training={"max_train_steps": 4, "sample_every": 0})
    train(concept)
    assert seconds_per_step(concept) > 0 and "as in the last such run here" in estimate(concept)
    assert state_of(concept, []) in ("learned", "ceiling"), "the note is no part of the run"
    other = concept.changed(name="other", training={"max_train_steps": 900})
    assert seconds_per_step(other) == seconds_per_step(concept)
    assert seconds_per_step(other.changed(training={"train_batch_size": 1})) is None


def test_a_run_on_another_machine_does_not_count(tiny):
    train(tiny)
    path = tiny.training_folder / "circumstances.json"
    write_json(path, json.loads(path.read_text()) | {"machine": "a faster one"})
    assert seconds_per_step(tiny) is None
