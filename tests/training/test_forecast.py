"""What a training will need: counted, or known from earlier runs, never guessed; and no GPU is touched."""

import json
from types import SimpleNamespace

import pytest
import torch

from helpers.common.files import write_json
from helpers.model.base_model import load_components, load_shapes
from helpers.training import forecast
from helpers.training.forecast import (
    estimate,
    memory_needed,
    seconds_per_step,
    this_machine,
)
from helpers.training.records import state_of
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
        monkeypatch.setattr(forecast.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=line))
        return this_machine.__wrapped__()

    return answer


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_shapes_count_the_same_as_weights(families, grooty, family):
    shapes, weights = load_shapes(str(families[family])), load_components(str(families[family]))
    assert all(tensor.is_meta for tensor in shapes.unet.parameters())
    for counted, read in zip(networks(shapes), networks(weights), strict=True):
        assert [tensor.nbytes for tensor in counted] == [tensor.nbytes for tensor in read]
    here = grooty.changed(base_model=str(families[family]), training={"resolution": 64})
    needed = memory_needed(here, torch.float32).weights
    assert needed == sum(tensor.nbytes for network in networks(weights)[1:] for tensor in network)


def networks(components):
    """The weights and buffers of the VAE, the UNet and the text encoder(s)."""
    parts = (components.vae, components.unet, *components.text_encoders)
    return [[*part.parameters(), *part.buffers()] for part in parts]


def test_without_a_gpu_the_processor_s_memory_counts(tiny):
    here = estimate(tiny)
    assert "processor cores" in here and "GiB" in here


def test_a_gpu_is_known_by_its_driver_alone(asked, tiny, monkeypatch):
    assert asked("") == asked("A100, [N/A]") == ("a GPU", None)
    assert asked("Tesla T4, 15360\nTesla T4, 15360\n") == ("Tesla T4", 15360 * 2**20)
    formats = []
    monkeypatch.setattr(forecast, "this_machine", this_machine.__wrapped__)
    monkeypatch.setattr(forecast, "memory_advice", lambda concept, dtype, *_: formats.append(dtype))
    for wanted in ("auto", "fp16", "bf16", "no"):
        estimate(tiny.changed(training={"mixed_precision": wanted}))
    assert formats == [torch.float16] * 3 + [torch.float32]
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
