"""What must be the same to the bit: all that is frozen, and a run that was killed. And what is cached."""

import random
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from families import last_state, on_model

from helpers.common import places
from helpers.dataset.dataset import TextualInversionDataset, View, preprocess, tokenizers_with_word
from helpers.dataset.images import load_images, write_captions
from helpers.model.base_model import load_vae
from helpers.model.tokens import LearnedRows
from helpers.model.vae import Posterior, encode
from helpers.training import learner
from helpers.training.batches import Draws, LatentCache
from helpers.training.model import load_model
from helpers.training.records import load_checkpoint, logged, read_log, request_stop
from helpers.training.train import train

# A run that kills itself, as the kernel or the machine would, in one of the watch's methods at a step.
_KILLED = """
    import os, signal, sys
    from helpers.training import train, watch

    method, step = sys.argv[1], int(sys.argv[2])
    real = getattr(watch.Watch, method)

    def dying(self, *given):
        if self.step == step:
            (self.concept.training_folder / "state.pt.partial").write_bytes(b"half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *given)

    setattr(watch.Watch, method, dying)
    train("grooty")
"""


@pytest.fixture
def tiny(grooty, families):
    return on_model(grooty, families["sd1"], max_train_steps=8, checkpoint_every=3)


def kill(method, step):
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), method, str(step)]
    done = subprocess.run(command, cwd=places.repository_folder(), capture_output=True, text=True)
    assert done.returncode == -9, done.stderr[-2000:]


def same_run(concept, whole, losses):
    state = last_state(concept)
    assert state["step"] == whole["step"] and torch.equal(state["rows"][0], whole["rows"][0])
    assert torch.equal(state["best"]["rows"][0], whole["best"]["rows"][0])
    assert state["fixed_losses"] == whole["fixed_losses"]
    assert logged(read_log(concept.training_folder), "loss") == losses


def test_a_run_killed_three_times_ends_as_one_that_was_not(tiny):
    train(tiny)
    whole, losses = last_state(tiny), logged(read_log(tiny.training_folder), "loss")
    shutil.rmtree(tiny.training_folder)
    tiny.save()
    kill("_log_step", 1)  # before the first checkpoint
    assert load_checkpoint(tiny.training_folder) is None
    kill("_log_step", 5)  # two steps after a checkpoint
    assert last_state(tiny)["step"] == 3
    kill("_checkpoint", 6)  # while a checkpoint is written
    assert last_state(tiny)["step"] == 3
    (
        random.seed(1),
        np.random.seed(1),
        torch.manual_seed(1),
    )  # the run's draws come from a generator of its own
    train(tiny)
    same_run(tiny, whole, losses)
    assert not list(tiny.training_folder.glob("*.partial"))


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tiny):
    train(tiny)
    whole, losses = last_state(tiny), logged(read_log(tiny.training_folder), "loss")
    looks = []

    def scorer(concept, model):
        looks.append(1)
        if len(looks) == 2:  # at step 3
            request_stop(concept.training_folder)
        return -len(looks)

    first = train(tiny, fresh=True, scorer=scorer)
    assert (first.ended, first.steps) == ("stopped", 3) and tiny.embeds_path.is_file()
    train(tiny)
    state = last_state(tiny)
    assert torch.equal(state["rows"][0], whole["rows"][0])
    assert logged(read_log(tiny.training_folder), "loss") == losses


@pytest.mark.parametrize("training", [{}, {"random_crop": True}, {"gradient_accumulation_steps": 2}])
def test_the_first_samples_of_a_run_are_those_of_notebook_3(training, tiny, monkeypatch):
    """Pixels by way of the VAE, since the run keeps latents alone; and the token ids."""
    tiny = tiny.changed(training=training)
    write_captions(tiny, "grooty-2.png", "a {} on a red table\na {} at night")
    latents, told, real = [], [], (Draws.latents, Draws.sentences)
    monkeypatch.setattr(Draws, "latents", lambda self: latents.append(real[0](self)) or latents[-1])
    monkeypatch.setattr(Draws, "sentences", lambda self: told.append(real[1](self)[0]) or [told[-1]])
    monkeypatch.setattr(Posterior, "draw", lambda self, noise: self.mean)
    train(tiny)
    shown = TextualInversionDataset(tiny, tokenizers_with_word(tiny), 64)
    samples = [shown[number] for number in range(10)]
    pixels = torch.stack([sample["pixel_values"] for sample in samples])
    assert torch.equal(torch.cat(latents)[:10], encode(load_vae(tiny.base_model), pixels).mean)
    assert torch.equal(torch.cat(told)[:10], torch.stack([sample["input_ids"][0] for sample in samples]))


def tensors_of(model):
    """Every weight and buffer of a model, those that no file holds included, but the new rows; by name."""
    parts = [*model.components.text_encoders, model.unet, model.vae]
    named = {
        f"{number}.{name}".replace(".table", ""): tensor
        for number, part in enumerate(parts)
        for name, tensor in (*part.named_parameters(), *part.named_buffers())
        if not name.endswith(".rows")
    }
    return {**named, "alphas": model.scheduler.alphas_cumprod, "betas": model.scheduler.betas}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_other_row_weight_and_buffer_is_the_same_to_the_bit(family, grooty, families, monkeypatch):
    seen = []

    def loading(*given, **named):
        model = load_model(*given, **named)
        seen.append((model, {name: tensor.clone() for name, tensor in tensors_of(model).items()}))
        return model

    monkeypatch.setattr(learner, "load_model", loading)
    train(on_model(grooty, families[family], weight_decay=0.1, max_train_steps=3, sample_every=3))
    ((model, before),) = seen
    after = tensors_of(model)
    assert after.keys() == before.keys() and any("position_ids" in name for name in after)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in after.values())
    learned = [encoder.get_input_embeddings() for encoder in model.components.text_encoders]
    assert len(learned) == (2 if family == "sdxl" else 1)
    for tokenizer, look_up in zip(model.components.tokenizers, learned, strict=True):
        assert isinstance(look_up, LearnedRows)
        start = look_up.weight[tokenizer.convert_tokens_to_ids("toy</w>")]
        assert not torch.isclose(look_up.rows, start, atol=1e-5).all(dim=1).any()


def test_the_cache_holds_what_the_autoencoder_says_and_the_autoencoder_leaves(tiny, monkeypatch):
    model = load_model(tiny, torch.device("cpu"))
    moves, real = [], model.vae.to
    monkeypatch.setattr(model.vae, "to", lambda device: moves.append(str(device)) or real(device))
    dataset = TextualInversionDataset(tiny, model.components.tokenizers, model.resolution)
    held = Posterior(**LatentCache(dataset, model)(View(1, flipped=True)))
    assert moves[-1] == "cpu"
    pixels = preprocess(load_images(tiny)[1], tiny.training, model.resolution, flipped=True)
    with torch.no_grad():
        said = model.vae.encode(pixels.unsqueeze(0)).latent_dist
    noise, scale = torch.randn(held.mean.shape), model.vae.config.scaling_factor
    assert torch.allclose(held.draw(noise), (said.mean + said.std * noise)[0] * scale, atol=1e-6)
