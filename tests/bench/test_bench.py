"""The bench: are the rival loops what they are said to be, and does it measure and write what it says?"""

import json

import psutil
import pytest
import torch
from transformers import CLIPTextModel

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.miniature.judge import Reading
from helpers.miniature.world import Drawing
from helpers.training.processes import Processes
from helpers.training.train import train
from tests.bench import busy, dreambooth, geometry, many, setting, table, truth
from tests.bench.figures import figures
from tests.bench.ledger import Ledger
from tests.bench.population import population
from tests.bench.rivals import DiffusersLoop, SourceLoop
from tests.bench.timing import side_by_side
from tests.known_words import known_rows

RATE, DECAY, STEPS = 1e-2, 1e-2, 3
MACHINE = {"processor": "a processor", "threads": 2, "torch": "2"}


@pytest.fixture
def folder(concepts, tmp_path, monkeypatch):
    """The bench's own folders, in a temporary place."""
    monkeypatch.setattr(setting, "FOLDER", tmp_path / "bench")
    yield tmp_path
    Processes().close()


def stepped(loop, steps=STEPS):
    """A rival after a few steps on the miniature, and its table before them."""
    rival = loop(setting.their_parts(), setting.make_concept("rival"), RATE)
    before = rival.table.detach().clone()
    for _ in range(steps):
        rival.step()
    return rival, before


def test_the_sources_loop_moves_the_word_and_shrinks_all_other_rows(folder):
    rival, before = stepped(SourceLoop)
    others = torch.arange(len(before)) != rival.words[0]
    decayed = before[others] * (1 - RATE * DECAY) ** STEPS
    assert torch.allclose(rival.table[others], decayed, rtol=1e-5, atol=0)
    assert not torch.equal(rival.table[others], before[others])
    moved = (rival.table[rival.words] - before[rival.words]).abs().max().item()
    assert RATE / 2 < moved <= 1.1 * RATE * STEPS


def test_the_diffusers_loop_moves_the_word_alone(folder):
    rival, before = stepped(DiffusersLoop)
    others = torch.arange(len(before)) != rival.words[0]
    assert torch.equal(rival.table[others], before[others])
    assert not torch.equal(rival.table[rival.words], before[rival.words])


def test_both_rivals_move_the_word_alike(folder):
    source, _ = stepped(SourceLoop, steps=1)
    diffusers, _ = stepped(DiffusersLoop, steps=1)
    assert torch.allclose(source.rows()[0], diffusers.rows()[0], atol=1e-6)


def test_a_rival_optimizes_the_whole_table_and_nothing_else(folder):
    rival, _ = stepped(SourceLoop, steps=1)
    parts = rival.parts
    trained = [
        weight
        for part in (parts.unet, parts.vae, *parts.text_encoders)
        for weight in part.parameters()
        if weight.requires_grad
    ]
    assert len(trained) == 1 and trained[0] is rival.table
    assert rival.optimizer.state[rival.table]["exp_avg"].shape == rival.table.shape


def test_a_model_of_the_real_size_has_a_tokenizer_of_the_real_size():
    """The rivals lengthen or cut their table to the tokenizer's entries, and train all of it."""
    with torch.device("meta"):
        encoder = CLIPTextModel(geometry.text_config(768, 12, 12))
        parts = geometry.components("sd1", geometry.sd15_unet(), [encoder], 512, 0.18215)
    assert len(parts.tokenizers[0]) == encoder.get_input_embeddings().num_embeddings == 49_408


def test_steps_are_timed_in_turns():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(side_by_side(steps, rounds=1, in_turn=2)) == {"a", "b"}
    assert "".join(order) == "aabbaabb"


def test_a_killed_bench_goes_on_where_it_was(tmp_path):
    path = tmp_path / "bench.json"
    Ledger(path, MACHINE).once("steps", lambda: {"batch": 4})
    again = Ledger(path, MACHINE)
    assert again.once("steps", lambda: pytest.fail("measured twice")) == {"batch": 4}
    assert not Ledger(path, {**MACHINE, "threads": 8}).measurements


def test_a_reason_stays_until_there_is_a_figure(tmp_path):
    ledger = Ledger(tmp_path / "bench.json", MACHINE)
    ledger.say_why_not("sd15_step_ratio_bf16", "no bfloat16")
    content = json.loads(ledger.path.read_text(encoding="utf-8"))
    assert content["sd15_step_ratio_bf16"] is None
    assert content["reasons"] == {"sd15_step_ratio_bf16": "no bfloat16"}
    ledger.say_why_not("sd15_step_ratio_bf16", None)
    assert Ledger(ledger.path, MACHINE).reasons == {}


def test_a_busy_machine_has_its_rows():
    seconds = {"idle": 10.5, "idle_torch": 10.0, "busy": 13.0, "busy_torch": busy.AT_MOST}
    found = {"busy": {"steps": 150, "seconds": seconds}}
    values = figures(found)
    assert values["step_time_ratio_batch1"] is None, "not measured"
    assert values["busy_time_ratio"] == 1.238 and values["idle_time_ratio"] == 1.05
    text = table.section({**values, "measurements": found, "machine": MACHINE, "reasons": {}})
    for row in (
        "| 150 steps, loading included, on an idle machine |  |  | 10.5 s (torch's own threads: 10.0 s) |",
        "| the same with a busy loop on each core |  |  | 13.0 s (torch's own threads: over 200.0 s) |",
    ):
        assert row in text


def test_a_word_of_many_is_timed_by_its_part_of_the_run(folder):
    measured = many.seconds_a_word(steps=1, words=2)
    assert all(seconds > 0 for seconds in measured["seconds"].values())
    found = {"many": {"steps": 300, "words": 16, "seconds": {"one": 24.0, "many": 12.0}}}
    values = figures(found)
    assert values["many_time_ratio"] == 0.5
    text = table.section({**values, "measurements": found, "machine": MACHINE, "reasons": {}})
    assert "| a word of 300 steps, alone and of 16 in one run |  |  | 24.0 s, 12.0 s |  |" in text


def test_a_run_is_timed_as_a_process_beside_loops_that_are_ended(folder, monkeypatch):
    beside = []

    def run(steps, environment):
        beside.append(len(psutil.Process().children()))
        return 1.0

    assert 0 < busy._run(1, {}) < busy.AT_MOST
    already = len(psutil.Process().children())
    monkeypatch.setattr(busy, "_run", run)
    assert busy.busy_seconds(rounds=1)["seconds"]["busy"] == 1.0
    loops = psutil.cpu_count()
    assert beside == [already, already, already + loops, already + loops]
    assert len(psutil.Process().children()) == already


def test_the_table_is_written_between_its_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n", encoding="utf-8")
    ledger = Ledger(tmp_path / "bench.json", MACHINE)
    seconds = {"source": 0.04, "diffusers": 0.05, "ours_batch1": 0.02, "ours": 0.04}
    ledger.measurements["steps"] = {"batch": 4, "seconds": seconds}
    table.write_table("bench", table.section(ledger.content()), readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- /bench -->\nafter\n") and "old" not in text
    assert "| a step at batch 1 | 40 ms | 50 ms | 20 ms | 2.0 |" in text
    assert "| a sample, ours at batch 4 | 40 ms | 50 ms | 10 ms | 4.0 |" in text


@pytest.fixture
def truth_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(truth, "repository_folder", lambda: tmp_path)
    monkeypatch.setattr(truth, "PATH", tmp_path / "truth.json")
    return tmp_path


def test_the_population_is_drawn_by_its_seed_alone():
    easy, hard = population(4, 7, "easy"), population(4, 7, "hard")
    assert easy == population(4, 7, "easy") != population(4, 8, "easy")
    assert (
        [one.toy for one in easy]
        == [one.toy for one in hard]
        == [one.toy for one in population(5, 7, "easy")[:4]]
    )
    assert all(len({d.scene for d in one.drawings}) == 5 for one in easy)
    assert all(len({(d.scene, d.accessory) for d in one.drawings}) == 1 for one in hard)


def test_what_leaks_is_the_old_place_or_thing_where_another_was_asked_for():
    toy = population(1, 7, "hard")[0].toy
    learned_from = (Drawing(toy, accessory="scarf", scene="snow"),)
    wanted = [Drawing(toy, scene=scene) for scene in ("snow", "beach", "beach", "beach", "beach")]
    seen = [
        ("snow", "scarf"),
        ("beach", "nothing"),
        ("snow", "nothing"),
        ("beach", "scarf"),
        ("city", "flag"),
    ]
    readings = [Reading({"scene": scene, "accessory": on}) for scene, on in seen]
    assert truth.leak(readings, wanted, learned_from) == 0.5


def test_truth_is_resumed_and_counts_its_toys(concepts, truth_folder, monkeypatch, capsys):
    taught = []

    def judged(word):
        score = 0.8 if word.setting == "easy" else 0.6
        return {"identity": score, "prompt": 1.0, "traits": dict.fromkeys(truth.TRAITS, score), "leak": 0.0}

    monkeypatch.setattr(truth, "judged", judged)
    monkeypatch.setitem(truth.TRAINERS, "ours", lambda concepts: taught.extend(one.name for one in concepts))
    monkeypatch.setattr(truth, "write_table", lambda *given: table.write_table(*given, readme))
    readme = truth_folder / "README.md"
    readme.write_text("<!-- truth -->\n<!-- /truth -->\n")
    truth.main(["--toys", "1", "--seed", "1", "--trainers", "ours"])
    truth.main(["--toys", "2", "--seed", "1", "--trainers", "ours", "--setting", "easy"])
    assert taught == ["easy-1-0-ours", "hard-1-0-ours", "easy-1-1-ours"]
    assert float((truth.folder() / "easy-1-0-ours.taught").read_text()) >= 0
    Concept.load("easy-1-1-ours").images_folder.joinpath("003.png").unlink()
    assert truth.concept_of(truth.Word("ours", "easy", 1, 1))[0].name == "easy-1-1-ours", "drawn again"
    figures = json.loads(truth.PATH.read_text())["ours"]
    assert (figures["easy"]["toys"], figures["hard"]["toys"]) == (2, 1)
    assert figures["easy"]["identity"] == 0.8 and figures["easy"]["seeds"] == [1]
    assert "| ours, easy | 2 | 0.80 ± 0.00 | 0.80 |" in readme.read_text()


def test_toys_that_settings_are_chosen_by_do_not_touch_what_is_reported(concepts, truth_folder, monkeypatch):
    scores = {"identity": 0.9, "prompt": 1.0, "traits": dict.fromkeys(truth.TRAITS, 0.9), "leak": 0.0}
    monkeypatch.setattr(truth, "judged", lambda word: scores)
    taught = {}
    monkeypatch.setattr(truth, "ours", lambda concepts: taught.update({one.name: one for one in concepts}))
    readme = truth_folder / "README.md"
    readme.write_text("<!-- tried -->\n<!-- /tried -->\n")
    asked = ["--toys", "1", "--seed", "100", "--setting", "hard"]
    truth.main([*asked, "--trainers", "norm left free", "four vectors"])
    free, four = taught["hard-100-0-norm-left-free"], taught["hard-100-0-four-vectors"]
    assert (free.training.norm, free.vectors, four.training.norm, four.vectors) == ("free", 2, "hold", 4)
    assert "| four vectors, hard | 1 | 0.90 | 0.90 |" in readme.read_text()
    assert (truth_folder / "tried.json").is_file() and not truth.PATH.exists()


def test_dreambooth_beside_a_word_prints_whole_rows(concepts, truth_folder, monkeypatch, capsys):
    def train_dreambooth(thing):
        model = dreambooth.dreambooth_folder(thing) / "model"
        model.parent.mkdir(parents=True)
        model.symlink_to(places.miniature_folder())

    taught = {"ours": lambda concepts: save_result(concepts[0], known_rows("miniature", "red toy"))}
    monkeypatch.setattr(truth, "TRAINERS", taught)
    monkeypatch.setattr(dreambooth, "describe_pictures", lambda thing: None)
    monkeypatch.setattr(dreambooth, "train_dreambooth", train_dreambooth)
    monkeypatch.setattr(dreambooth, "PICTURES", 1)
    monkeypatch.setattr(dreambooth, "WEIGHTS", ((1.3, 0.7),))
    dreambooth.main(["--toys", "2", "--seed", "1"])
    head, *rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line[:1] == "|"]
    said = ["the word", "`sks toy`", "`toy`", "`toy`, in the unchanged model", "both, 1.3 and 0.7"]
    assert [row[:2] for row in rows[1:]] == [
        [f" {pair} ", f" {one} "] for pair in ("0, 1", "1, 0") for one in said
    ]
    assert {len(row) for row in rows} == {len(head)}


def test_a_word_says_more_than_a_description():
    """What `make truth` measured, on toys that no setting was chosen by."""
    measured = json.loads(truth.PATH.read_text(encoding="utf-8"))
    described = measured[truth.DESCRIPTION]["easy"]
    ours, hard = measured["ours"]["easy"], measured["ours"]["hard"]
    assert ours["identity"] >= described["identity"] + 0.05 and ours["prompt"] >= 0.99
    assert ours["traits"]["feet"] > described["traits"]["feet"], "no sentence can name the feet"
    assert measured[truth.TOGETHER]["easy"]["identity"] >= 0.94, "of sixteen in one run"
    assert hard["identity"] >= 0.85 and hard["prompt"] >= 0.95 and hard["leak"] < 0.1


def test_sixteen_words_are_one_run_and_share_its_seconds(concepts, truth_folder, monkeypatch):
    runs = truth.runs_of(2, [1], ["easy"], ["ours", truth.TOGETHER])
    assert [len(run) for run in runs] == [1, 1, 16]
    taught = []
    monkeypatch.setitem(truth.TRAINERS, truth.TOGETHER, taught.append)
    monkeypatch.setattr(truth, "_processor_seconds", iter((10.0, 42.0)).__next__)
    truth.folder().mkdir(parents=True)
    truth.teach(runs[-1])
    truth.teach(runs[-1])
    assert len(taught) == 1 and len({concept.placeholder_token for concept in taught[0]}) == 16
    assert {word.file("taught").read_text() for word in runs[-1]} == {"2.0\n"}


def test_a_loop_of_several_vectors_moves_them_all(folder):
    concept = setting.make_concept("rival").changed(vectors=2)
    rival = DiffusersLoop(setting.their_parts(), concept, RATE)
    start = rival.rows()[0]
    rival.step()
    assert len(start) == 2 and (rival.rows()[0] != start).any(dim=1).all()


def test_a_word_that_is_learned_does_not_lose_to_the_initializer(concepts, truth_folder):
    """On this toy, closer views alone said so: its ears and feet stand at the edge of the pictures."""
    concept, _ = truth.concept_of(truth.Word("ours", "easy", seed=2, toy=3))
    concept = concept.changed(training={"max_train_steps": 20, "checkpoint_every": 20})
    assert train(concept).best_step == 20
