"""The rules of a run, each alone: draws, weights, norms, stopping, log, precision, memory."""

import copy
import errno
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice, pairwise

import pytest
import torch
from torch import nn

from helpers.common import places
from helpers.common.errors import UserError
from helpers.common.files import write_whole
from helpers.concept import concept_table
from helpers.concept.concept import TrainingSettings
from helpers.concept.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES
from helpers.dataset.dataset import held_out_templates, training_templates
from helpers.model.base_model import load_shapes, load_tokenizers
from helpers.model.machine import diffusers
from helpers.model.tokens import CAPTION_WORDS
from helpers.training import forecast
from helpers.training import step as loss_weights
from helpers.training.batches import Draws, EndlessBatches
from helpers.training.evaluate import (
    HeldOutScore,
    fixed_loss,
    is_learned,
    print_proposals,
    try_initializers,
)
from helpers.training.figures import plot_curves
from helpers.training.learner import (
    Learner,
    keep_norm,
    learning_rate,
    make_optimizer,
    make_schedule,
    open_learner,
)
from helpers.training.model import load_model, quantize_linears
from helpers.training.processes import FreeCores, Processes
from helpers.training.records import (
    INPUTS_FILE,
    SUMMARY_FILE,
    Log,
    RunSummary,
    clear_request,
    finished,
    inputs_changed,
    load_checkpoint,
    logged,
    read_log,
    request_stop,
    run_inputs,
    save_checkpoint,
    state_of,
    stop_requested,
)
from helpers.training.step import target_of, training_step


class OneProcess:
    count, index = 1, 0


class First:
    count, index = 2, 0


class Second:
    count, index = 2, 1


class Numbers(torch.utils.data.Dataset):
    """Stands in for the data set: latents of 1 x 2 x 2 and a token that are the sample's number."""

    def __getitem__(self, number):
        mean = torch.full((1, 2, 2), float(number))
        return {"mean": mean, "deviation": torch.zeros_like(mean), "input_ids": [torch.tensor([number])]}


def draws(processes=OneProcess, **settings):
    return Draws(Numbers(), TrainingSettings(**settings), processes, loss_weights.all_the_same)


def scheduler(kind="epsilon"):
    return diffusers().DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind
    )


def test_two_processes_share_the_samples_that_one_would_take_with_the_whole_batch():
    one, first, second = EndlessBatches(4, OneProcess), EndlessBatches(2, First), EndlessBatches(2, Second)
    for whole, *parts in islice(zip(one, first, second, strict=True), 3):
        assert whole == parts[0] + parts[1]
    assert whole == [8, 9, 10, 11]


def test_timesteps_cover_the_range_evenly_and_stay_in_it():
    drawn = draws(train_batch_size=4, first_timestep=100, last_timestep=299)
    batches = torch.stack([drawn.timesteps() for _ in range(500)])
    assert batches.min() >= 100 and batches.max() <= 299
    assert abs(batches.float().mean() - 199.5) < 2  # each timestep as likely as any other
    gaps = batches.sort(dim=1).values.diff(dim=1)
    assert gaps.min() >= 49 and gaps.max() <= 51  # four in a batch, a quarter of the range apart


def test_several_timesteps_of_one_picture():
    drawn = draws(train_batch_size=2, timesteps_per_picture=3)
    latents, noise, timesteps, sentences = (
        drawn.latents(),
        drawn.noise(),
        drawn.timesteps(),
        drawn.sentences()[0],
    )
    assert len(latents) == len(noise) == len(timesteps) == len(sentences) == 6
    assert torch.equal(latents[0], latents[2]) and not torch.equal(latents[0], latents[3])
    assert len(timesteps.unique()) == 6 and not torch.equal(noise[0], noise[1])


def test_draws_go_on_from_their_state():
    one, other = draws(), draws(seed=1)
    one.latents(), one.noise(), one.sentences()
    other.load_state_dict(one.state_dict())
    for name in ("latents", "noise", "timesteps"):
        assert torch.equal(getattr(one, name)(), getattr(other, name)())
    assert torch.equal(one.sentences()[0], other.sentences()[0])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_is_that_of_diffusers_scripts(kind):
    from diffusers.training_utils import compute_snr

    timesteps = torch.tensor([0, 10, 300, 999])
    snr = compute_snr(scheduler(kind), timesteps)
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr + 1 if kind == "v_prediction" else snr)
    assert torch.allclose(loss_weights.min_snr(scheduler(kind), timesteps, 5.0), expected)


def test_the_target_follows_the_prediction_type():
    latents, noise, timesteps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    assert target_of(scheduler(), latents, noise, timesteps) is noise
    velocity = target_of(scheduler("v_prediction"), latents, noise, timesteps)
    kept = scheduler().alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    assert torch.allclose(velocity, kept.sqrt() * noise - (1 - kept).sqrt() * latents, atol=1e-6)


def test_the_norm_is_held_decayed_or_free():
    start = torch.tensor([1.0])
    for rule, expected in (("free", 3.0), ("hold", 1.0), ("decay", 2.0)):
        rows = torch.tensor([[3.0, 0.0]])
        keep_norm(rule, rows, start, learning_rate=0.005)  # decay: half of the way back
        assert rows.norm().item() == pytest.approx(expected) and rows[0, 1] == 0


def test_it_is_learned_when_the_fixed_loss_rests():
    falling = [1 - 0.1 * step for step in range(8)]
    assert not is_learned(falling)
    assert not is_learned([*falling, *[0.2 - 0.1 * step for step in range(8)]])
    assert is_learned([*falling, *[0.2, 0.21] * 4])
    assert not is_learned([0.2, 0.21] * 8)  # it has never moved: nothing was learned


def test_a_checkpoint_is_judged_as_closely_by_nine_pictures_as_by_five(grooty):
    model, _ = open_learner(grooty)
    few = HeldOutScore(grooty, model).loss
    for number in range(1, 5):
        shutil.copy(grooty.images_folder / f"grooty-{number}.png", grooty.images_folder / f"x{number}.png")
    many = HeldOutScore(grooty, model).loss
    assert len(few.latents) / 5 <= len(many.latents) / 9 + 0.5
    assert len(many.latents.unique(dim=0)) == 2 * 5, "each as it is and closer; four are there twice"


def test_no_template_is_both_trained_on_and_kept_back(grooty):
    for kind, shipped in (("object", OBJECT_TEMPLATES), ("style", STYLE_TEMPLATES)):
        concept = grooty.changed(what_to_teach=kind, own_templates=["my {} at home"])
        kept_back, trained = held_out_templates(concept), training_templates(concept)
        assert set(kept_back) | set(trained) == {*shipped, "my {} at home"}
        assert kept_back and not set(kept_back) & set(trained) and "my {} at home" in trained


@pytest.mark.parametrize(
    "name", ["constant", "linear", "cosine", "polynomial", "cosine_with_restarts", "piecewise_constant"]
)
def test_schedules_of_diffusers(name):
    settings = TrainingSettings(lr_scheduler=name, lr_warmup_steps=0, max_train_steps=10, learning_rate=0.1)
    optimizer = make_optimizer([nn.Parameter(torch.ones(2))], settings, processes=1)
    schedule = make_schedule(optimizer, settings)
    rates = [schedule.get_last_lr()[0] for _ in range(10) if not (optimizer.step(), schedule.step())[0]]
    assert rates[-1] == pytest.approx(0.1) if name == "constant" else rates[-1] < rates[0]
    rises = any(later > rate for rate, later in pairwise(rates))
    assert rises == (name == "cosine_with_restarts")


def test_every_schedule_of_diffusers_can_be_chosen():
    from diffusers.optimization import SchedulerType

    offered = TrainingSettings.model_fields["lr_scheduler"].annotation.__args__
    assert sorted(offered) == sorted(["inverse_time", *(kind.value for kind in SchedulerType)])


def test_the_rate_falls_as_one_over_the_steps_whatever_the_length_of_the_run():
    for length in (100, 600):
        settings = TrainingSettings(max_train_steps=length, lr_warmup_steps=10, learning_rate=0.1)
        optimizer = make_optimizer([nn.Parameter(torch.ones(2))], settings, processes=1)
        schedule = make_schedule(optimizer, settings)
        rates = [schedule.get_last_lr()[0] for _ in range(91) if not (optimizer.step(), schedule.step())[0]]
        assert rates[3] == pytest.approx(0.05) and rates[8:29] == [0.1] * 21
        assert rates[58] == pytest.approx(0.05) and rates[88] == pytest.approx(0.1 / 3)


def test_scale_lr_multiplies_by_accumulation_batch_and_processes():
    settings = TrainingSettings(
        learning_rate=1e-4, scale_lr=True, train_batch_size=3, gradient_accumulation_steps=2
    )
    assert learning_rate(settings, 2, torch.ones(1, 4)) == pytest.approx(12e-4)


def test_without_a_rate_it_follows_the_size_of_the_initializers_numbers():
    small, large = (
        torch.full((2, 8), -0.014, requires_grad=True),
        torch.full((1, 4), 0.05, requires_grad=True),
    )
    groups = make_optimizer([small, large], TrainingSettings(), processes=1).param_groups
    assert groups[0]["lr"] == pytest.approx(0.0112) and groups[1]["lr"] == pytest.approx(0.04)


def test_the_log_drops_what_a_killed_run_left(tmp_path):
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, loss=float(step))
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut off by the kill
    again = Log(tmp_path, 2)
    again.write(3, loss=30.0)
    again.close()
    assert logged(read_log(tmp_path), "loss") == ([1, 2, 3], [1.0, 2.0, 30.0])


def test_a_damaged_line_of_the_log_is_left_out(tmp_path):
    good = b'{"step": 1, "loss": 0.5}\n'
    (tmp_path / "log.jsonl").write_bytes(good + b"\0\0\0\n\xff{\n7\n" + good.replace(b"1", b"2"))
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
    Log(tmp_path, 1).close()
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_the_log_is_the_same_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, loss=1.0 / step, event="a sentence")
    log.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == ["loss"]
    written = {scalar.step: pytest.approx(scalar.value) for scalar in board.Scalars("loss")}
    assert written == dict(zip(*logged(read_log(tmp_path), "loss"), strict=True))


# What its reader meets with an error of its own kind: of bytes, of a key, of an index.
ODD_PICKLES = [b"\x80\x02r\x01", b"\x80\x02h\x05.", b"\x80\x02."]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", *ODD_PICKLES])
def test_a_damaged_checkpoint_is_met_with_what_to_do(content, tmp_path):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(UserError, match="FRESH = True"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"ended": "lear', b"[]", b"null", b'{"depth": 3}', b"\xff\x00"])
def test_damaged_notes_of_a_run_stop_nobody(content, grooty):
    """Nor the forecast of another concept, which reads those of all."""
    run = grooty.training_folder
    for name in (INPUTS_FILE, SUMMARY_FILE, "circumstances.json", "../scores.json"):
        write_whole(run / name, content)
    write_whole(grooty.embeds_path, b"")
    assert forecast.seconds_per_step(grooty) is None and finished(grooty) is None
    assert state_of(grooty, []) == "killed" and "learned" in repr(concept_table())
    assert inputs_changed(grooty, run_inputs(grooty))
    with pytest.raises(UserError, match=r"training/outcome\.json of “grooty” is damaged: run notebook 4"):
        RunSummary.load(grooty)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"step": 1})

    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError):
        save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_the_stop_file_can_be_made_by_anyone(tmp_path):
    folder = tmp_path / "training"
    assert not stop_requested(folder)
    request_stop(folder)
    assert (folder / "stop").is_file() and stop_requested(folder)
    clear_request(folder)
    assert not stop_requested(folder)


@pytest.mark.parametrize(("bits", "close"), [("8bit", 0.99), ("4bit", 0.9)])
def test_a_quantised_network_lets_the_gradient_through(bits, close):
    torch.manual_seed(0)
    exact = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)).requires_grad_(False).eval()
    rough = copy.deepcopy(exact)
    quantize_linears(rough, bits, torch.device("cpu"))
    assert not any(type(module) is nn.Linear for module in rough.modules())
    given = torch.randn(4, 64)
    with torch.no_grad():
        rough(given)  # as the fixed loss does: it must not turn the weights into a form without a gradient
    gradients = []
    for network in (exact, rough):
        tensor = given.clone().requires_grad_(True)
        network(tensor).square().mean().backward()
        gradients.append(tensor.grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > close


@pytest.mark.parametrize(("bits", "close"), [("8bit", 0.99), ("4bit", 0.8)])
def test_a_quantised_unet_lets_the_gradient_through_to_the_rows(bits, close, grooty):
    """On the miniature, after a look at the fixed loss, as in a run."""
    gradients = []
    for quantize in ("no", bits):
        concept = grooty.changed(training={"quantize": quantize, "mixed_precision": "no"})
        model = load_model(concept, torch.device("cpu"))
        assert any(type(part) is nn.Linear for part in model.unet.modules()) == (quantize == "no")
        learner = Learner(concept, model, Processes())
        fixed_loss(learner, model)(model)
        training_step(model, learner.draws).mean().backward()
        gradients.append(learner.parameters()[0].grad.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > close


def test_eight_bit_adam_moves_the_rows_as_adam_does():
    """Rows are under its 4,096 elements: it keeps them in 32 bit."""
    moved = []
    for is_8bit in (False, True):
        rows = nn.Parameter(torch.linspace(-1, 1, 16).view(2, 8))
        settings = TrainingSettings(learning_rate=0.1, use_8bit_adam=is_8bit)
        optimizer = make_optimizer([rows], settings, processes=1)
        for _ in range(3):
            rows.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(rows.detach())
    assert torch.allclose(*moved, atol=1e-5)


def test_attention_is_computed_by_plain_products_only_where_these_are_quicker(grooty, families):
    """In bfloat16 on a CPU, with few tokens: what comes out is the same but for rounding."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    few = grooty.changed(
        base_model=str(families["sd1"]), training={"resolution": 64, "mixed_precision": "bf16"}
    )
    for changed, plain, text in (
        ({}, AttnProcessor, "eager"),
        ({"resolution": 512}, AttnProcessor2_0, "eager"),
        ({"mixed_precision": "no"}, AttnProcessor2_0, "sdpa"),
    ):
        model = load_model(few.changed(training=changed), torch.device("cpu"))
        assert {type(one) for one in model.unet.attn_processors.values()} == {plain}
        assert model.components.text_encoders[0].config._attn_implementation == text


def test_auto_is_float32_for_the_miniature_on_a_cpu(grooty, families, monkeypatch):
    monkeypatch.setattr("helpers.model.machine._cpu_has_bfloat16", lambda: True)
    assert load_model(grooty, torch.device("cpu")).dtype == torch.float32
    other = grooty.changed(base_model=str(families["sd1"]))
    assert load_model(other, torch.device("cpu")).dtype == torch.bfloat16


def test_compile_without_a_compiler_is_a_sentence(grooty, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="install g\\+\\+"):
        load_model(grooty.changed(training={"compile": True}), torch.device("cpu"))


def test_initializers_are_tried_before_training_a_phrase_among_them(grooty):
    tried = try_initializers(grooty, ["snow", "tall brown"])
    assert {candidate.words for candidate in tried} == {"toy", "snow", "tall brown"}
    losses = [candidate.fixed_loss for candidate in tried]
    assert losses == sorted(losses) and len(set(losses)) == 3
    assert not grooty.training_folder.exists()


def test_the_forecast_counts_what_autograd_keeps():
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).requires_grad_(False)
    given = torch.randn(10, 8, requires_grad=True)
    assert forecast.saved_bytes(network, lambda: network(given)) == 10 * 16 * 4  # what ReLU gave


def test_the_forecast_grows_with_the_batch_and_falls_with_each_remedy(grooty, families):
    settings = {"train_batch_size": 4, "resolution": 64}
    concept = grooty.changed(base_model=str(families["sd1"]), training=settings)

    def total(**changes):
        return forecast.memory_needed(concept.changed(training=changes), torch.float32)

    default = total()
    assert default.weights > sum(p.nbytes for p in load_shapes(concept.base_model).unet.parameters())
    words = [forecast.memory_needed(concept, torch.float32, words) for words in (1, 4, 16)]
    assert words[0].activations * 3 < words[1].activations == words[2].activations
    assert total(train_batch_size=1).activations < default.activations / 3
    assert total(gradient_checkpointing=True).activations < default.activations
    assert total(quantize="4bit").weights < total(quantize="8bit").weights < default.weights


def test_too_little_memory_is_met_with_what_to_switch_on(grooty, families):
    settings = {"train_batch_size": 2, "resolution": 64}
    concept = grooty.changed(base_model=str(families["sdxl"]), training=settings)
    sentence = forecast.memory_advice(concept, torch.float32, 1000, "on a GPU")
    assert "more than there is" in sentence
    assert "more than there is" not in forecast.memory_advice(concept, torch.float32, 2**40, "on a GPU")
    remedies = {"gradient_checkpointing": True, "train_batch_size": 1, "quantize": "4bit"}
    assert all(f"{name}={value!r}" in sentence for name, value in remedies.items())
    sentence = forecast.memory_advice(concept.changed(training=remedies), torch.float32, 1000, "on a GPU")
    assert "Should it fail, choose a smaller base model" in sentence, "nothing is left to switch on"


def test_concepts_that_do_not_fit_are_named(grooty):
    from helpers.training.train import train_many

    other = grooty.changed(name="other", training={"train_batch_size": 2})
    with pytest.raises(UserError, match="given twice"):
        train_many([grooty, other])
    other = other.changed(placeholder_token="<other>")
    with pytest.raises(UserError, match="same train_batch_size"):
        train_many([grooty, other])


def test_the_miniature_gets_a_thread_for_each_core_that_others_leave_free(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with closing(FreeCores(active=True)) as cores:
        cores.most, cores.cores = 4, 4
        for taken, left in ((0.3, 4), (1.1, 3), (4.0, 1), (0.0, 4)):
            monkeypatch.setattr(cores, "taken_by_others", lambda taken=taken: taken)
            cores.adjust()
            assert torch.get_num_threads() == left
        cores.most = before
    assert torch.get_num_threads() == before


def test_the_cores_of_another_program_are_counted_and_one_s_own_are_not():
    cores = FreeCores(active=True)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        time.sleep(1)
        taken = cores.taken_by_others()
        busy.kill()
    assert 0.3 < taken <= cores.cores + 0.1


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_wait_quietly_unless_a_person_has_said_how(given, spins):
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", "import helpers, os; print(os.environ.get('GOMP_SPINCOUNT'))"]
    ran = subprocess.run(
        command,
        cwd=places.repository_folder(),
        env={**others, **given},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == spins


def test_words_are_proposed_that_mean_things_to_the_model(grooty, capsys):
    print_proposals(grooty, count=100)
    losses, words = zip(*(line.split() for line in capsys.readouterr().out.splitlines()[-20:]), strict=True)
    assert {"toy", "brown", "tall"} <= {*words} and list(losses) == sorted(losses)
    assert {*words} <= {*load_tokenizers("miniature")[0].init_kwargs[CAPTION_WORDS]}, "no names of toys"


def test_curves_that_lie_on_each_other_are_both_seen():
    flat = list(range(100)), [1.0] * 100
    picture = plot_curves({"length of each row": {"<grooty>": flat, "<grooty>_1": flat}}).convert("RGB")
    panel = picture.crop((0, 0, picture.width, round(0.8 * picture.height)))  # the legend is below
    pixels = {colour: count for count, colour in panel.getcolors(2**16)}
    assert min(pixels[0x2F, 0x7E, 0xD8], pixels[0xD9, 0x73, 0x0D]) > panel.width / 2
