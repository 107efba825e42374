"""A copy of the base model learns a second thing; the base stays, and a learned word goes into the copy."""

import shutil
from contextlib import closing

import pytest
import torch
from known_words import known_rows
from single_files import write_single_file

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.dataset.dataset import token_ids
from helpers.inference.pipeline import generate, pipeline_with_word
from helpers.model.base_model import load_components
from helpers.training import dreambooth
from helpers.training.dreambooth import (
    DreamboothSettings,
    LoraLearner,
    dreambooth_concept,
    dreambooth_folder,
    save_model,
    train_dreambooth,
)
from helpers.training.learner import open_run
from helpers.training.model import load_model
from helpers.training.processes import Processes
from helpers.training.records import STOP_FILE, load_checkpoint, read_log

FEW = DreamboothSettings(steps=4, prior_pictures=2, checkpoint_every=2)


@pytest.fixture
def starla(grooty):
    """A thing without a learned word, with pictures, on the base model of the series' concept."""
    concept = dreambooth_concept("starla", grooty, "sks", "toy")
    shutil.copytree(grooty.images_folder, concept.images_folder)
    return concept


@pytest.fixture
def few_draw_steps(monkeypatch):
    """The prior's pictures are drawn in two steps of the sampler."""
    monkeypatch.setattr(dreambooth, "generate", lambda *given, **named: generate(*given, steps=2, **named))


def last_weights(concept):
    return load_checkpoint(dreambooth_folder(concept))["learner"]["weights"]["unet"]


def test_the_model_changes_and_the_base_does_not(starla, few_draw_steps):
    before = places.miniature_hash()
    train_dreambooth("starla", FEW)
    assert places.miniature_hash() == before
    base, changed = (
        load_components(one).unet.state_dict()
        for one in ("miniature", str(dreambooth_folder(starla) / "model"))
    )
    moved = {name for name in base if not torch.allclose(base[name], changed[name], atol=1e-3)}
    assert moved and all("attn" in name for name in moved)


def test_a_run_that_was_stopped_goes_on_to_the_bit(starla, few_draw_steps, monkeypatch):
    folder = dreambooth_folder(starla)
    train_dreambooth("starla", FEW)
    whole = last_weights(starla)
    real = LoraLearner.update

    def stops_after_three(self, *given):
        loss = real(self, *given)
        if self.step == 3:
            (folder / STOP_FILE).touch()
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(LoraLearner, "update", stops_after_three)
        train_dreambooth("starla", FEW, fresh=True)
    assert load_checkpoint(folder)["learner"]["step"] == 3 and not (folder / "model").exists()
    train_dreambooth("starla", FEW)
    assert [line["step"] for line in read_log(folder)] == [1, 2, 3, 4]
    assert all(torch.equal(whole[name], value) for name, value in last_weights(starla).items())
    assert (starla.folder / "dreambooth-1" / "model").is_dir(), "the run before was thrown away"


def test_what_is_done_is_not_done_again(starla, few_draw_steps, monkeypatch):
    train_dreambooth("starla", FEW)
    drawn = [path.stat().st_mtime_ns for path in sorted((starla.folder / "prior").glob("*.png"))]
    assert len(drawn) == 2
    with monkeypatch.context() as patch:
        patch.setattr(dreambooth, "open_run", lambda *_: pytest.fail("it trained again"))
        train_dreambooth("starla", FEW)
    train_dreambooth("starla", DreamboothSettings(steps=1, prior_pictures=2))  # other settings, same class
    assert drawn == [path.stat().st_mtime_ns for path in sorted((starla.folder / "prior").glob("*.png"))]
    starla.changed(initializer_token="star").save()
    train_dreambooth("starla", DreamboothSettings(steps=1, prior_pictures=2))
    assert drawn != [path.stat().st_mtime_ns for path in sorted((starla.folder / "prior").glob("*.png"))]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_each_family_learns_and_takes_the_word(family, families, grooty, few_draw_steps):
    word = grooty.changed(
        base_model=str(families[family]), training={"resolution": 64, "mixed_precision": "no"}
    )
    word.save()
    save_result(word, known_rows(str(families[family]), "toy"))
    thing = dreambooth_concept("starla", word, "sks", "toy")
    shutil.copytree(grooty.images_folder, thing.images_folder)
    train_dreambooth("starla", DreamboothSettings(steps=1, prior_pictures=0, text_encoder=True))
    model = str(dreambooth_folder(thing) / "model")
    pipeline = pipeline_with_word(word, base_model=model)
    prompts = ["a <grooty> sks toy", "a <grooty> (sks toy:1.5)"]
    plain, weighted = generate(pipeline, prompts, 0, steps=1, size=64)
    assert plain.image.size == (64, 64) and plain.image.tobytes() != weighted.image.tobytes()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_checkpoint_of_one_file_takes_the_word(suffix, families, grooty, tmp_path):
    """As the Dreambooth checkpoint that somebody has already; here it is the base model's own weights."""
    word = grooty.changed(base_model=str(families["sd1"]))
    save_result(word, known_rows(word.base_model, "toy"))
    file = write_single_file(families["sd1"], tmp_path / f"toy_cat{suffix}")
    leave_out = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(families["sd1"], file.with_suffix(""), ignore=leave_out)
    drawn = [
        generate(pipeline_with_word(word, base_model=model), "a (<grooty>:1.2) sks", 0, steps=1, size=64)
        for model in (None, str(file))
    ]
    assert drawn[0][0].image.tobytes() == drawn[1][0].image.tobytes()
    assert drawn[1][0].settings.base_model == f"toy_cat{suffix}"


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_file_holds_what_was_learned(family, families, grooty):
    """The saved model, into which the LoRA's file was merged, says what the trained one said."""
    thing = grooty.changed(
        base_model=str(families[family]), training={"resolution": 64, "mixed_precision": "no"}
    )
    processes = Processes()
    model = load_model(thing, processes.device)
    settings = DreamboothSettings(prior_pictures=0, text_encoder=True)
    learner = LoraLearner(thing, settings, model, processes)
    processes.close()
    with torch.no_grad():
        for value in learner.parameters():  # so much that it can be told from rounding
            value.normal_(std=0.2)
    save_model(thing, learner.weights(), torch.float32)
    merged = load_model(thing.changed(base_model=str(dreambooth_folder(thing) / "model")), processes.device)
    base = load_model(thing, processes.device)
    trained, saved, before = (what_it_says(one) for one in (model, merged, base))
    for of_trained, of_saved, of_base in zip(trained, saved, before, strict=True):
        assert distance(of_trained, of_saved) < 0.05 * distance(of_trained, of_base)


@torch.no_grad()
def what_it_says(model):
    """What its text encoders make of a sentence, and its UNet of noise under always the same numbers."""
    ids = token_ids(model.components.tokenizers, ["a sks toy"])
    conditioning = model.embed(ids)
    fixed = {
        name: torch.ones_like(value)
        for name, value in conditioning.items()
        if isinstance(value, torch.Tensor)
    }
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    said = model.predict(noise, torch.tensor([500]), conditioning | fixed)
    return conditioning["encoder_hidden_states"], said


def distance(one, other):
    return (one - other).norm().item()


def test_a_concept_with_a_word_is_left_alone(grooty):
    save_result(grooty, known_rows("miniature", "toy toy"))
    other = grooty.model_copy(update={"name": "other"})
    with pytest.raises(UserError, match="another name"):
        dreambooth_concept("grooty", other, "sks", "toy")
    assert Concept.load("grooty").placeholder_token == "<grooty>"


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rank": 0}, {"prior_pictures": -1}, {"learning_rate": 2.0}])
def test_settings_that_cannot_be_used_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        DreamboothSettings(**wrong)


@pytest.mark.parametrize("setting", ["timesteps_per_picture", "gradient_accumulation_steps"])
def test_its_loss_is_a_mean_over_timesteps_and_batches(setting, families, grooty, monkeypatch):
    seen = []

    def ones(model, draws):
        timesteps = draws.timesteps()
        seen.extend(timesteps)
        return torch.ones(len(timesteps), requires_grad=True)

    monkeypatch.setattr(dreambooth, "training_step", ones)
    training = {"resolution": 64, "train_batch_size": 4, setting: 2}
    thing = grooty.changed(base_model=str(families["sd1"]), training=training)
    with closing(Processes()) as processes, open_run(thing, processes) as run:
        learner = LoraLearner(thing, DreamboothSettings(prior_pictures=0), run.model, processes)
        assert learner.update(run) == 1 and len(seen) == 8
