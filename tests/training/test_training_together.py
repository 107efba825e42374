"""Several words in one run, and several processes on one batch."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from helpers.common import places
from helpers.concept.embedding import load_rows, step_path
from helpers.model.base_model import MINIATURE
from helpers.training.learner import Learner, Run, make_scaler, update
from helpers.training.model import load_model
from helpers.training.processes import FreeCores, Processes
from helpers.training.records import logged, read_log
from helpers.training.train import train, train_many

# One update of the concept in this environment; each process writes what it saw.
_ONE_UPDATE = """
    import json, sys
    import torch
    from helpers.concept.concept import Concept
    from helpers.training.learner import Learner, Run, make_scaler, update
    from helpers.training.model import load_model
    from helpers.training.processes import FreeCores, Processes

    concept = Concept.load("grooty")
    processes = Processes()
    model = load_model(concept, processes.device)
    learner = Learner(concept, model, processes)
    kept = []
    learner.optimizer.step = lambda: kept.append(learner.parameters()[0].grad.flatten().tolist())
    losses = update(Run(model, processes, make_scaler(model), FreeCores(active=False)), [learner])
    seen = {"count": processes.count, "index": processes.index, "loss": losses[0], "gradient": kept[0]}
    with open(f"{sys.argv[1]}/{processes.index}.json", "w") as file:
        json.dump(seen, file)
    processes.close()
"""

# What notebook 4 does, in a script; each process writes which one it is.
_LAUNCH = """
    import socket, sys
    from pathlib import Path
    from accelerate import notebook_launcher
    from helpers.training.train import train
    many = sys.modules["helpers.training.train"]

    class Noted(many.Processes):
        def __init__(self):
            super().__init__()
            Path(sys.argv[1], f"process-{self.index}").write_text(f"{self.index} of {self.count}")

    many.Processes = Noted
    if __name__ == "__main__":
        with socket.socket() as free:  # the usual port may be another run's
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        notebook_launcher(train, args=("grooty",), num_processes=2, use_port=port)
"""


@pytest.fixture
def tiny(grooty, families):
    quick = {"resolution": 64, "sample_every": 0, "max_grad_norm": None, "mixed_precision": "no"}
    return grooty.changed(base_model=str(families["sd1"]), training=quick)


def _launch(arguments, processes):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
    ]
    command = [*torchrun, *arguments] if processes > 1 else [sys.executable, *arguments]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "yes", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(places.repository_folder())
    done = subprocess.run(
        command, env=environment, cwd=places.repository_folder(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _one_update(concept, processes, folder):
    concept.save()
    folder.mkdir()
    script = folder / "one_update.py"
    script.write_text(textwrap.dedent(_ONE_UPDATE))
    _launch([str(script), str(folder)], processes)
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tiny, tmp_path):
    tiny = tiny.changed(base_model=MINIATURE, training={"resolution": None})  # as in the last test here
    (whole,) = _one_update(tiny.changed(training={"train_batch_size": 4}), 1, tmp_path / "one")
    halves = _one_update(tiny.changed(training={"train_batch_size": 2}), 2, tmp_path / "two")
    assert [half["count"] for half in halves] == [2, 2] and [half["index"] for half in halves] == [0, 1]
    assert halves[0]["gradient"] == halves[1]["gradient"]
    gradient, expected = (torch.tensor(seen["gradient"]) for seen in (halves[0], whole))
    # One process that takes the batch in two halves differs by as much: it is float32's rounding.
    assert (gradient - expected).abs().max() < 2e-4 * expected.abs().max()
    assert halves[0]["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_a_word_learned_beside_another_is_the_word_learned_alone(grooty):
    """On the miniature: random weights are so steep that a rounding error grows a thousandfold a step."""
    first = grooty.changed(training={"sample_every": 0, "mixed_precision": "no"})
    second = first.changed(name="second", placeholder_token="<second>", training={"seed": 7})
    both = [first, second]
    second.save()
    second.images_folder.symlink_to(first.images_folder)
    together = train_many(both)
    rows = [load_rows(step_path(concept, 4))[0] for concept in both]  # the result may be the initializer
    assert [summary.concept for summary in together] == ["grooty", "second"]
    for concept, beside in zip(both, rows, strict=True):
        train(concept, fresh=True)
        assert torch.allclose(load_rows(step_path(concept, 4))[0], beside, atol=1e-4)
    assert not torch.allclose(*rows, atol=1e-4)


def test_a_word_among_five_has_the_gradient_that_it_has_alone(tiny):
    """Five are more than one forward pass takes."""
    # Random weights, as the tiny model has, magnify the rounding.
    tiny = tiny.changed(base_model=MINIATURE, training={"resolution": None})
    model, gradients = load_model(tiny, torch.device("cpu")), []
    for turn in ("alone", "among"):
        words = [
            tiny.changed(placeholder_token=f"<{turn}-{number}>", training={"seed": number})
            for number in range(5)
        ]
        learners = [Learner(word, model, Processes()) for word in words]
        for together in [learners] if turn == "among" else [[learner] for learner in learners]:
            gradients += _gradients_of_an_update(model, together)
    for alone, among in zip(gradients[:5], gradients[5:], strict=True):
        assert (among - alone).abs().max() < 2e-4 * alone.abs().max()
    assert not torch.allclose(gradients[0], gradients[1])


def _gradients_of_an_update(model, learners):
    kept = []
    for learner in learners:
        rows = learner.parameters()[0]
        learner.optimizer.step = lambda rows=rows: kept.append(rows.grad.clone())
    update(Run(model, Processes(), make_scaler(model), FreeCores(active=False)), learners)
    return kept


def test_notebook_launcher_starts_two_processes_on_one_batch_of_which_the_main_one_writes(tiny, tmp_path):
    tiny.save()
    script = tmp_path / "launch.py"
    script.write_text(textwrap.dedent(_LAUNCH))
    printed = _launch([str(script), str(tmp_path)], processes=1)
    assert sorted(path.read_text() for path in tmp_path.glob("process-*")) == ["0 of 2", "1 of 2"]
    assert printed.count("grooty: It reached max_train_steps.") == 1
    assert logged(read_log(tiny.training_folder), "loss")[0] == [1, 2, 3, 4]
    assert len(list((tiny.training_folder / "tensorboard").iterdir())) == 1


def test_accelerate_launch_trains_the_folder(tiny):
    tiny.save()
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    printed = _launch([*command, "-m", "helpers.training", str(tiny.folder)], processes=1)
    assert "grooty: 4 steps" in printed and tiny.embeds_path.is_file()


def test_each_word_stops_by_itself(tiny):
    other = tiny.changed(name="second", placeholder_token="<second>", training={"max_train_steps": 2})
    other.save()
    other.images_folder.symlink_to(tiny.images_folder)
    assert [summary.steps for summary in train_many([tiny, other])] == [4, 2]
