"""The bench: are the rival loops what they are said to be, and does it measure and write what it says?"""

import json
import math

import psutil
import pytest
import torch

from helpers.concept.embedding import load_rows
from helpers.miniature.judge import Reading
from helpers.miniature.world import Drawing
from helpers.training.processes import Processes
from tests.bench import busy, runs, setting, table, truth, truth_table
from tests.bench.figures import figures
from tests.bench.ledger import Ledger
from tests.bench.ours import BareOurs
from tests.bench.plan import (
    LONG_RUNS,
    OUR_LOOKS,
    RATES,
    SEEDS,
    SWEEP_SEEDS,
    THEIR_LOOKS,
    Run,
    our_run,
    their_run,
)
from tests.bench.population import population
from tests.bench.readings import best_rate, time_to
from tests.bench.rivals import DiffusersLoop, SourceLoop
from tests.bench.timing import Clock, side_by_side

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


def test_a_run_is_looked_at_and_its_rows_are_kept(folder):
    curve = runs.carry_out(Run("ours", seed=0, steps=5))
    assert curve["steps"] == [0, 5] and curve["stopped"]["step"] == 5
    assert 0 < curve["seconds"][0] < curve["seconds"][1]
    assert curve["losses"][0] != curve["losses"][1]
    before, after = (load_rows(setting.rows_path("ours/seed0", step))[0] for step in (0, 5))
    assert before.shape == after.shape and not torch.equal(before, after)
    assert setting.rows_path("ours/seed0", "result").is_file()


def test_all_are_compared_by_the_same_loss(folder):
    """A rival and ours start from the same word, so that their first losses are the same but for rounding."""
    concept = setting.make_concept("compared")
    loss_of = setting.SharedLoss(concept)
    ours = BareOurs(concept, setting.our_model(concept))
    theirs = SourceLoop(setting.their_parts(), concept)
    assert loss_of(ours.model) == pytest.approx(loss_of(theirs.model), rel=1e-4)


def test_a_run_goes_on_until_the_target_and_no_further_than_its_limit():
    run = Run("source", seed=0, steps=10, at_most=20)
    assert run.goes_on(9, loss=1.0, target=2.0) and not run.goes_on(10, loss=1.0, target=2.0)
    assert run.goes_on(19, loss=3.0, target=2.0) and not run.goes_on(20, loss=3.0, target=2.0)


def test_the_time_to_a_loss_lies_between_two_looks():
    assert time_to([1, 3], [10, 6], 8) == 2
    assert time_to([1, 3], [10, 6], 12) == 1
    assert time_to([1, 3], [10, 6], 5) == math.inf


def test_the_clock_stands_still_outside():
    with Clock() as clock:
        pass
    counted = clock.seconds
    sum(range(100_000))
    assert clock.seconds == counted
    with clock:
        sum(range(100_000))
    assert clock.seconds > counted


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


def made_up():
    """Measurements as if ours took 10 s to the target and the source 100 s, 20 s at a rate of 2e-3."""
    found = {run.measurement: curve(1.0, 0.0, seconds=50) for run in LONG_RUNS}
    for seed in SEEDS:
        found[our_run(seed).measurement] = curve(1.0, 0.1, seconds=10, steps=OUR_LOOKS)
    for kind in ("source", "diffusers"):
        for rate in RATES:
            for seed in SEEDS if rate in (RATES[0], 2e-3) else SWEEP_SEEDS:
                end, seconds = (0.1, 20) if rate == 2e-3 else (0.6, 100)
                found[their_run(kind, rate, seed).measurement] = curve(1.0, end, seconds, THEIR_LOOKS)
    return found


def curve(start, end, seconds, steps=(1000,)):
    """A curve that falls on a straight line."""
    shares = [number / len(steps) for number in range(len(steps) + 1)]
    return {
        "steps": [0, *steps],
        "seconds": [seconds * share for share in shares],
        "losses": [start + (end - start) * share for share in shares],
    }


def test_ratios_are_theirs_over_ours():
    found = made_up()
    values = figures(found)
    assert best_rate(found, "source") == 2e-3 == values["best_lr"]["diffusers"]
    assert values["gain_time_ratio_best_lr"] == pytest.approx(2)
    assert values["gain_time_ratio_source"] == pytest.approx(10)
    assert values["gain_seconds"]["source"]["reached"] == 0, "a lower bound"
    assert values["final_gain_time_ratio_source"] == pytest.approx(100 / (10 * 4 / 9), rel=1e-3)
    assert values["step_time_ratio_batch1"] is None, "not measured"


def test_an_equal_score_is_timed_by_the_judges_looks():
    found = made_up()
    for seed in SEEDS:
        theirs = their_run("source", 2e-3, seed)
        for number, look in enumerate(THEIR_LOOKS, 1):
            found[theirs.score(look)] = {"identity": number / len(THEIR_LOOKS), "prompt": 1.0}
        for look in OUR_LOOKS:
            found[our_run(seed).score(look)] = {"identity": 1.0, "prompt": 1.0}
    values = figures(found)
    assert values["score_seconds"]["ours"] == pytest.approx(10 / len(OUR_LOOKS), abs=0.01), (
        "at the first look"
    )
    assert 17 < values["score_seconds"]["source"] < 20
    for seed in SEEDS:
        for look in OUR_LOOKS:
            found[our_run(seed).score(look)] = {"identity": 0.1, "prompt": 1.0}
    values = figures(found)
    assert values["score_seconds"]["ours"] is None and values["score_time_ratio_best_lr"] == 0
    content = {**values, "measurements": found, "machine": MACHINE, "reasons": {}}
    assert "An equal score is 95% of the highest" in table.section(content)


def test_an_equal_score_is_one_of_most_runs():
    """A single run that is lucky early does not count."""
    found = made_up()
    for seed in SEEDS:
        for kind, looks in ((their_run("source", 2e-3, seed), THEIR_LOOKS), (our_run(seed), OUR_LOOKS)):
            for look in looks:
                is_late = look == looks[-1]
                found[kind.score(look)] = {"identity": 1.0 if is_late or seed < 2 else 0.0, "prompt": 1.0}
    values = figures(found)
    assert values["score_seconds"]["source"] > 17 and values["score_seconds"]["ours"] > 8


def test_what_goes_before_the_first_step_is_said():
    found = made_up()
    for seed in SEEDS:
        found[our_run(seed).measurement]["before_step_1"] = {"latents encoded": 0.1 * (1 + seed), "looked": 1}
    found["steps"] = {
        "batch": 4,
        "seconds": {"source": 0.04, "diffusers": 0.05, "ours_batch1": 0.02, "ours": 0.07},
    }
    content = {**figures(found), "measurements": found, "machine": MACHINE, "reasons": {}}
    assert content["before_step_1"] == {"latents encoded": 0.3, "looked": 1}
    said = (
        "1.3 s go by before the first step (latents encoded 0.30 s, looked 1.00 s); then a step is 4 samples"
    )
    assert said in table.section(content)


def test_words_learned_together_are_compared_with_runs_alone():
    found = {f"many/alone/{seed}": {"gains": [0.010 + 0.001 * seed]} for seed in SEEDS}  # 0.012 +- 0.0016
    found["many/1"] = {"steps": 50, "seconds_per_concept": 9.0, "gains": [0.010]}
    found["many/4"] = {"steps": 50, "seconds_per_concept": 6.0, "gains": [0.010, 0.011, 0.012, 0.013]}
    found["many/16"] = {"steps": 50, "seconds_per_concept": 5.0, "gains": [0.012] * 15 + [0.020]}
    values = figures(found)
    assert values["many"]["4"] == {"within_two": 4, "farthest": pytest.approx(1.26, abs=0.01)}
    assert values["many"]["16"]["within_two"] == 15 and values["many"]["16"]["farthest"] > 5
    content = {**values, "measurements": found, "machine": MACHINE, "reasons": {}}
    assert "9.0 s a word for 1, 6.0 s a word for 4, 5.0 s a word for 16." in table.section(content)
    assert "for 4 of 4, 15 of 16 words" in table.section(content)


def test_a_busy_machine_has_its_rows():
    seconds = {"idle": 10.5, "idle_torch": 10.0, "busy": 13.0, "busy_torch": busy.AT_MOST}
    found = {"busy": {"steps": 150, "seconds": seconds}}
    values = figures(found)
    assert values["busy_time_ratio"] == 1.24 and values["idle_time_ratio"] == 1.05
    text = table.section({**values, "measurements": found, "machine": MACHINE, "reasons": {}})
    for row in (
        "| 150 steps, loading included, on an idle machine |  |  | 10.5 s (torch's own threads: 10.0 s) |",
        "| the same with a busy loop on each core |  |  | 13.0 s (torch's own threads: over 200.0 s) |",
    ):
        assert row in text


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
    ledger.measurements = made_up()
    seconds = {"source": 0.04, "diffusers": 0.05, "ours_batch1": 0.02, "ours": 0.04}
    ledger.measurements["steps"] = {"batch": 4, "seconds": seconds}
    table.write_table(ledger.content(), readme)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- /bench -->\nafter\n") and "old" not in text
    assert "| a step at batch 1 | 40 ms | 50 ms | 20 ms | 2.0 |" in text
    assert "| a sample, ours at batch 4 | 40 ms | 50 ms | 10 ms | 4.0 |" in text
    assert (
        "| 90% of the gain, their own settings | over 100.0 s | over 100.0 s | 10.0 s | over 10.0 |" in text
    )


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

    def judged(concept, sitter):
        score = 0.8 if "easy" in concept.name else 0.6
        return {"identity": score, "prompt": 1.0, "traits": dict.fromkeys(truth.TRAITS, score), "leak": 0.0}

    monkeypatch.setattr(truth, "judged", judged)
    monkeypatch.setitem(truth.TRAINERS, "ours", lambda concept: taught.append(concept.name))
    monkeypatch.setattr(truth, "write_table", lambda content: truth_table.write_table(content, readme))
    readme = truth_folder / "README.md"
    readme.write_text("<!-- truth -->\n<!-- /truth -->\n")
    truth.main(["--toys", "1", "--seed", "1", "--trainers", "ours"])
    truth.main(["--toys", "2", "--seed", "1", "--trainers", "ours", "--setting", "easy"])
    assert taught == ["easy-1-0-ours", "hard-1-0-ours", "easy-1-1-ours"]
    figures = json.loads(truth.PATH.read_text())["ours"]
    assert (figures["easy"]["toys"], figures["hard"]["toys"]) == (2, 1)
    assert figures["easy"]["identity"] == 0.8 and figures["easy"]["seeds"] == [1]
    assert "| ours, easy | 2 | 0.80 ± 0.00 | 0.80 |" in readme.read_text()


def test_a_loop_of_several_vectors_moves_them_all(folder):
    concept = setting.make_concept("rival").changed(vectors=2)
    rival = DiffusersLoop(setting.their_parts(), concept, RATE)
    start = rival.rows()[0]
    rival.step()
    assert len(start) == 2 and (rival.rows()[0] != start).any(dim=1).all()
