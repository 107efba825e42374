"""A run from its first step to its files: what is trained, what is not, what a person finds afterwards."""

import contextlib
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import weakref

import pytest
import torch
from families import last_state, on_model
from PIL import Image
from safetensors.torch import load_file

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import load_rows, saved_steps, step_path
from helpers.model import base_model as whole_pipeline
from helpers.model.base_model import load_pipeline
from helpers.training import learner as update
from helpers.training import watch
from helpers.training.figures import (
    by_hand,
    gradients,
    sample_animation,
    sample_sheet,
    saved_samples,
)
from helpers.training.learner import Learner
from helpers.training.model import load_model
from helpers.training.processes import FreeCores, Processes, in_sentences
from helpers.training.records import (
    RunSummary,
    load_checkpoint,
    logged,
    read_log,
    request_stop,
    save_checkpoint,
)
from helpers.training.train import train


@pytest.fixture
def tiny(grooty, families):
    """The concept on a tiny Stable Diffusion 1.5 of random weights: a step takes milliseconds."""
    return on_model(grooty, families["sd1"])


def test_leaves_the_word_a_log_samples_and_an_outcome(tiny):
    tiny = tiny.changed(training={"sample_every": 2})
    summary = train(tiny)
    assert summary == RunSummary.load(tiny) and summary.steps == 4 and summary.ended == "ceiling"
    state = load_file(tiny.embeds_path)
    assert list(state) == ["<grooty>"] and state["<grooty>"].shape == (2, 32)
    pickled = torch.load(tiny.embeds_path.with_suffix(".bin"), weights_only=True)
    assert torch.equal(pickled["<grooty>"], state["<grooty>"])
    assert torch.equal(load_rows(step_path(tiny, summary.best_step))[0], state["<grooty>"])
    assert saved_steps(tiny) == [0, 2, 4] and list(saved_samples(tiny)) == [0, 1, 2, 4]
    assert f"was kept: {summary.best_step}" in sample_sheet(tiny).alt
    with Image.open(io.BytesIO(sample_animation(tiny).content)) as animation:
        up_to_it = [step for step in saved_samples(tiny) if step <= summary.best_step]
        assert getattr(animation, "n_frames", 1) == len(up_to_it)
    lines = read_log(tiny.training_folder)
    assert [line["event"] for line in lines if "event" in line][-1] == summary.reason
    assert logged(lines, "loss")[0] == [1, 2, 3, 4] and logged(lines, "fixed_loss")[0] == [0, 2, 4]
    assert any((tiny.training_folder / "tensorboard").iterdir())


def test_only_the_rows_have_a_gradient_or_a_place_in_the_optimizer(tiny):
    train(tiny)
    hand = by_hand(tiny)
    update.training_step(hand.model, hand.learner.draws).mean().backward()
    assert list(gradients(hand).values()) == [(2, 32)]
    numbers = sum(p.numel() for group in hand.learner.optimizer.param_groups for p in group["params"])
    assert numbers == 2 * 32


@pytest.mark.parametrize(
    ("family", "keys"), [("sd1", ["<grooty>"]), ("sd2", ["<grooty>"]), ("sdxl", ["clip_g", "clip_l"])]
)
def test_every_family_is_read_back_by_its_pipeline(family, keys, grooty, families):
    concept = on_model(grooty, families[family], mixed_precision="auto").changed(vectors=2)
    train(concept)
    rows, pipeline = load_file(concept.embeds_path), load_pipeline(concept.base_model)
    assert sorted(rows) == keys
    encoders = {"clip_g": ("text_encoder_2", "tokenizer_2")}
    for key, value in rows.items():
        encoder, tokenizer = (
            getattr(pipeline, name) for name in encoders.get(key, ("text_encoder", "tokenizer"))
        )
        pipeline.load_textual_inversion(value, token="<grooty>", text_encoder=encoder, tokenizer=tokenizer)
        ids = tokenizer.convert_tokens_to_ids(concept.placeholder_tokens)
        assert torch.equal(encoder.get_input_embeddings().weight[ids], value)


def test_an_interrupt_waits_for_the_step_and_saves(tiny):
    calls = []

    def scorer(concept, model):
        calls.append(1)
        if len(calls) == 2:  # after step 2
            os.kill(os.getpid(), signal.SIGINT)
        return 0

    with pytest.raises(KeyboardInterrupt):
        train(tiny, scorer=scorer)
    assert RunSummary.load(tiny).ended == "stopped" and last_state(tiny)["step"] == 3
    assert train(tiny).steps == 4


def test_what_is_done_is_returned_without_loading_a_model(tiny, monkeypatch):
    summary = train(tiny)
    monkeypatch.setattr(update, "load_model", lambda *_: pytest.fail("loaded a model"))
    assert train(tiny) == summary


def test_a_run_killed_after_its_last_checkpoint_takes_no_step_more(tiny, monkeypatch):
    tiny = tiny.changed(training={"sample_every": 4})
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(watch, "save_sample", lambda *given: sys.exit("killed") if given[-1] == 4 else None)
        train(tiny)
    assert train(tiny).steps == 4
    assert logged(read_log(tiny.training_folder), "loss")[0] == [1, 2, 3, 4]


def test_a_stop_that_comes_while_the_model_loads_counts(tiny, monkeypatch):
    def loading(concept, *given, **named):
        request_stop(concept.training_folder)
        return load_model(concept, *given, **named)

    monkeypatch.setattr(update, "load_model", loading)
    assert (train(tiny).ended, RunSummary.load(tiny).steps) == ("stopped", 1)


def test_a_run_goes_on_where_the_format_needs_loss_scaling(tiny, monkeypatch):
    train(tiny.changed(training={"max_train_steps": 2}))
    assert load_checkpoint(tiny.training_folder)["scaler"] == {}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    monkeypatch.setattr(update, "make_scaler", lambda model: scaler)
    assert train(tiny).steps == 4


def test_a_pipeline_asked_for_later_is_saved(tiny, monkeypatch, capsys):
    train(tiny)
    monkeypatch.setattr(whole_pipeline, "LARGE", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(tiny.changed(training={"save_pipeline": True}))
    assert re.search(r"saving pipeline/: +0%.*0/[1-9]", capsys.readouterr().err)
    saved, base = load_pipeline(str(tiny.folder / "pipeline")), load_pipeline(tiny.base_model)
    assert tiny.placeholder_token in saved.tokenizer.get_vocab()
    names = {name for name, part in base.components.items() if part is not None}
    assert names == {name for name, part in saved.components.items() if part is not None}
    assert all(map(torch.equal, saved.unet.parameters(), base.unet.parameters()))


def test_a_folder_elsewhere_is_refused_and_a_copied_one_is_its_own(tiny, tmp_path):
    with pytest.raises(UserError, match="CONCEPTS_ROOT"):
        train(str(tmp_path / "elsewhere" / "grooty"))
    tiny.save()
    shutil.copytree(tiny.folder, tiny.folder.with_name("copy"))
    assert Concept.load("copy").folder == tiny.folder.with_name("copy")


def test_nothing_of_an_interrupted_run_is_held_by_its_error(tiny, monkeypatch):
    models = []

    def loading(*given, **named):
        model = load_model(*given, **named)
        models.append(weakref.ref(model))
        return model

    def scorer(concept, model):
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    monkeypatch.setattr(update, "load_model", loading)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, scorer=scorer)
    assert models[0]() is None


def test_a_run_of_the_version_before_goes_on(tiny):
    train(tiny.changed(training={"max_train_steps": 2}))
    state = load_checkpoint(tiny.training_folder)
    state["learner"]["draws"] = {
        "generator": state["learner"]["draws"]["generator"],
        "pictures": [1],
        "sentences": [],
    }
    save_checkpoint(tiny.training_folder, {**state, "random": {}})
    assert train(tiny).steps == 4
    assert last_state(tiny)["draws"]["batches"] == 4


def test_a_higher_ceiling_goes_on(tiny):
    train(tiny)
    assert train(tiny.changed(training={"max_train_steps": 5})).steps == 5
    assert logged(read_log(tiny.training_folder), "loss")[0] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("again", [{"fresh": True}, {"changed": {"learning_rate": 1e-2}}])
def test_starting_over_keeps_the_former_run(again, tiny):
    train(tiny)
    old = tiny.embeds_path.read_bytes()
    train(tiny.changed(training=again.get("changed")), fresh=again.get("fresh", False))
    aside = tiny.folder / "training-1"
    assert (aside / "learned_embeds.safetensors").read_bytes() == old
    assert len(read_log(aside)) and logged(read_log(tiny.training_folder), "loss")[0] == [1, 2, 3, 4]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_rows(tiny, monkeypatch):
    real, taken = update.training_step, []

    def training_step(model, draws):
        taken.append(1)
        return real(model, draws) * (float("nan") if len(taken) == 3 else 1)

    monkeypatch.setattr(update, "training_step", training_step)
    with pytest.raises(UserError, match="step 3: set learning_rate to a third"):
        train(tiny)
    assert load_file(tiny.embeds_path)["<grooty>"].isfinite().all()
    assert last_state(tiny)["step"] == 2
    assert last_state(tiny)["rows"][0].isfinite().all()


def test_an_overflow_of_the_scaled_gradient_only_skips_the_step(tiny, monkeypatch):
    model = load_model(tiny, torch.device("cpu"))
    learner, scaler = Learner(tiny, model, Processes()), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    run = update.Run(model, Processes(), scaler, FreeCores(active=False))
    real, rows = update.training_step, [learner.copy_rows()[0]]
    for factor in (1e36, 1.0):  # a finite loss, but times the scale it is not
        monkeypatch.setattr(update, "training_step", lambda *batch, factor=factor: real(*batch) * factor)
        losses = update.update(run, [learner])
        assert torch.tensor(losses).isfinite().all()
        rows.append(learner.copy_rows()[0])
    assert torch.equal(rows[1], rows[0]) and scaler.get_scale() == 2.0**15
    assert not torch.equal(rows[2], rows[1]) and rows[2].isfinite().all()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "training/state.pt"), "state.pt” can't be written"),
        (PermissionError(errno.EACCES, "Permission denied", "training/state.pt"), "can't be written"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "memory is full: set train_batch_size"),
        (RuntimeError("MPS backend out of memory"), "memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory is full"),
    ],
)
def test_what_a_machine_can_fail_of_is_said_in_a_sentence(error, sentence):
    @in_sentences
    def fail():
        raise error

    with pytest.raises(UserError, match=sentence) as raised:
        fail()
    assert raised.value.__context__ is None, "it would hold the model"


def test_a_full_memory_keeps_the_last_checkpoint_and_the_run_goes_on(tiny, monkeypatch):
    real, taken = update.training_step, []

    def training_step(model, draws):
        taken.append(1)
        if len(taken) == 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real(model, draws)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="memory is full"):
        patch.setattr(update, "training_step", training_step)
        train(tiny)
    assert last_state(tiny)["step"] == 2
    assert train(tiny).steps == 4


def test_an_error_of_another_kind_stays_what_it_is(tiny, monkeypatch):
    def scorer(concept, model):
        raise RuntimeError("a mistake in the scorer")

    with pytest.raises(RuntimeError, match="a mistake in the scorer"):
        train(tiny, scorer=scorer)


@pytest.fixture
def small_disk(tmp_path, tiny, monkeypatch):
    """The concept on a disk of three megabytes of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]).returncode:
        pytest.skip("only root can make a disk")
    tiny.save()
    shutil.copytree(tiny.folder, disk / "grooty")
    monkeypatch.setenv(places.ROOT_VARIABLE, str(disk))
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_fills_up_leaves_a_checkpoint_to_go_on_from(small_disk, tiny):
    filling = small_disk / "filling"

    def scorer(concept, model):
        if (concept.training_folder / "state.pt").is_file():  # after step 2: from now on there is no room
            with contextlib.suppress(OSError), filling.open("wb") as file:
                while True:
                    file.write(bytes(1024))
                    file.flush()
        return 0

    with pytest.raises(UserError, match="disk is full"):
        train(tiny.name, scorer=scorer)
    assert last_state(tiny)["step"] == 2
    filling.unlink()
    assert train(tiny.name).steps == 4


def test_a_read_only_disk_is_a_sentence(small_disk, tiny):
    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", small_disk], check=True)

    remount("ro")
    with pytest.raises(UserError, match="can't be written: make its folder writable"):
        train(tiny.name)
    remount("rw")
    assert train(tiny.name).steps == 4


@pytest.mark.parametrize("part", ["training_folder", "folder"])
def test_a_folder_deleted_under_the_run_is_a_sentence_and_stays_deleted(part, tiny):
    def scorer(concept, model):
        shutil.rmtree(getattr(concept, part))
        return 0

    with pytest.raises(UserError, match="moved or deleted during the run"):
        train(tiny, scorer=scorer)
    assert not getattr(tiny, part).exists()


def test_a_fixed_loss_that_rests_ends_the_run_and_the_log_says_so(tiny, monkeypatch):
    falling = iter([1 - 0.1 * step for step in range(8)] + [0.2, 0.21] * 40)
    monkeypatch.setattr("helpers.training.evaluate.FixedLoss.__call__", lambda self, model: next(falling))
    rests = tiny.changed(training={"max_train_steps": 60, "evaluate_every": 1, "checkpoint_every": 50})
    summary = train(rests, scorer=lambda concept, model: 0)
    assert summary.ended == "learned" and summary.steps == 15
    said = f"{watch.LEARNED} {watch.NOT_BETTER}"  # the judge says so
    assert read_log(tiny.training_folder)[-1] == {"step": 15, "event": said}


@pytest.mark.parametrize(
    "unusual", [{"what_to_teach": "style"}, {"vectors": 8}, {"training": {"train_batch_size": 7}}]
)
def test_unusual_concepts_with_one_picture_are_trained(unusual, tiny):
    for picture in sorted(tiny.images_folder.iterdir())[1:]:
        picture.unlink()
    concept = tiny.changed(**unusual)
    assert train(concept).steps == 4
    assert load_rows(concept.embeds_path)[0].shape == (concept.vectors, 32)


def test_the_best_checkpoint_is_the_result_not_the_last(tiny):
    scores = iter([0, 5, 1])
    summary = train(tiny, scorer=lambda concept, model: next(scores))
    assert summary.best_step == 2
    assert torch.equal(load_rows(tiny.embeds_path)[0], load_rows(step_path(tiny, 2))[0])
    assert not torch.equal(load_rows(tiny.embeds_path)[0], load_rows(step_path(tiny, 4))[0])


def test_samples_come_early_and_at_the_kept_step(tiny):
    scores = iter([0, 1, 2, 5, 3])  # at steps 0, 2, 4, 6, 8
    every_eight = {"max_train_steps": 8, "sample_every": 8}
    train(tiny.changed(training=every_eight), scorer=lambda concept, model: next(scores))
    assert list(saved_samples(tiny)) == [0, 2, 4, 6, 8]


def test_random_crops_are_encoded_as_they_come(tiny, capsys):
    summary = train(tiny.changed(training={"random_crop": True}))
    assert summary.steps == 4 and "encoded at each step" in capsys.readouterr().out


def test_no_pictures_is_a_sentence(concepts, short, families):
    concept = Concept.make("empty", base_model=str(families["sd1"]), training=short)
    with pytest.raises(UserError, match="no pictures"):
        train(concept)


def test_the_miniature_learns_something(grooty):
    concept = grooty.changed(
        training={"max_train_steps": 60, "evaluate_every": 60, "checkpoint_every": 60, "sample_every": 0}
    )
    summary = train(concept)
    assert summary.best_fixed_loss < summary.first_fixed_loss and summary.best_step == 60


def test_importing_the_trainer_touches_no_gpu_and_no_quantiser():
    code = (
        "import sys, torch\n"
        "from accelerate import notebook_launcher\n"
        "from helpers.training.records import RunSummary; from helpers.training.train import train\n"
        "from helpers.training.forecast import training_plan\n"
        "from helpers.widgets.live import LiveTraining\n"
        "assert not torch.cuda.is_initialized()\n"
        "assert 'bitsandbytes' not in sys.modules\n"
        "assert not any(name.startswith('diffusers.pipelines.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=places.repository_folder(), check=True)


def test_the_command_trains_a_folder(tiny):
    tiny.save()
    command = [sys.executable, "-m", "helpers.training", str(tiny.folder)]
    done = subprocess.run(command, cwd=places.repository_folder(), capture_output=True, text=True)
    assert done.returncode == 0 and "grooty: 4 steps" in done.stdout
    assert tiny.embeds_path.is_file()


def test_the_command_names_what_is_missing():
    command = [sys.executable, "-m", "helpers.training", "nothing"]
    done = subprocess.run(command, cwd=places.repository_folder(), capture_output=True, text=True)
    assert done.returncode == 1 and "There is no concept “nothing”" in done.stderr


def test_learner_starts_from_the_initializer(tiny):
    model = load_model(tiny, torch.device("cpu"))
    learner = Learner(tiny, model, Processes())
    toy = model.components.tokenizers[0].convert_tokens_to_ids("toy</w>")
    table = model.components.text_encoders[0].get_input_embeddings().weight
    assert torch.equal(learner.copy_rows()[0][0], table[toy].float())
