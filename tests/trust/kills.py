"""A run that is killed at random moments: what is left opens, and it ends as one that nobody killed."""

import io
import itertools
import os
import random
import shutil
import signal
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch

from helpers.concept.concept import Concept
from helpers.training.records import load_checkpoint, logged, read_log
from helpers.training.train import train

from .setting import a_root, make_concept

_SEED = 0
_WRITES = 24  # files that a whole run writes, about
Ending = tuple[bytes, list[float], list[torch.Tensor]]


def kills(count: int) -> dict[str, int]:
    """Kill runs with SIGKILL `count` times, in turn at a moment of a whole run and in the middle of a write.

    Both are drawn by chance. A run that ends before its moment is compared with one that was never killed,
    and begun anew; so is the last one.

    Returns:
        `kills`; `in a write`, how many of them left a file without its name; `runs`, that ended equal to
        the bit: result, losses and state.

    Raises:
        AssertionError: something was lost, damaged or different.
    """
    moments = random.Random(_SEED)
    with a_root() as model:
        concept = make_concept("killed", model, checkpoint_every=1, evaluate_every=2)
        _run(concept, None)  # reads what later runs find in the system's cache
        began = time.monotonic()
        whole = _begin_anew(concept) or _run(concept, None) or _ending(concept)
        length = time.monotonic() - began
        _begin_anew(concept)
        found = {"kills": 0, "in a write": 0, "runs": 0}
        while found["kills"] < count:
            in_a_write = found["kills"] % 2
            seconds = None if in_a_write else moments.uniform(0, length)
            if _run(concept, seconds, moments.randrange(_WRITES) if in_a_write else None):
                found["kills"] += 1
                found["in a write"] += _check_left(concept)
            else:
                found["runs"] += _check_ended(concept, whole)
        _run(concept, None)
        found["runs"] += _check_ended(concept, whole)
    return found


def _run(concept: Concept, seconds: float | None, write: int | None = None) -> bool:
    """Train in a process of its own, killed after some seconds or in one of its writes; whether it was."""
    child = os.fork()
    if not child:
        if write is not None:
            _die_in(write)
        with redirect_stdout(io.StringIO()):
            train(concept.name)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # one that has ended waits here for its parent
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the run failed"
    return os.WIFSIGNALED(status)


def _die_in(write: int) -> None:
    """Let this process be killed when so many files were written and the next one is to get its name."""
    named, replace = itertools.count(), Path.replace

    def dying(path: Path, target: Path) -> Path:
        if next(named) == write:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = dying


def _check_left(concept: Concept) -> bool:
    """What a kill left can be opened; whether it was in the middle of a write."""
    Concept.load(concept.name)
    load_checkpoint(concept.training_folder)  # raises where it is damaged
    read_log(concept.training_folder)
    return any(concept.folder.rglob("*.partial"))


def _check_ended(concept: Concept, whole: Ending) -> int:
    ending = _ending(concept)
    same_rows = all(torch.equal(one, other) for one, other in zip(ending[2], whole[2], strict=True))
    assert ending[:2] == whole[:2] and same_rows, "a run that was killed ended differently"
    _begin_anew(concept)
    return 1


def _ending(concept: Concept) -> Ending:
    _, losses = logged(read_log(concept.training_folder), "loss")
    state = load_checkpoint(concept.training_folder)["learner"]
    return concept.embeds_path.read_bytes(), losses, state["rows"]


def _begin_anew(concept: Concept) -> None:
    shutil.rmtree(concept.training_folder)
    for result in concept.folder.glob("learned_embeds.*"):
        result.unlink()
