"""Concepts made, taught, exported and deleted in one process: what it still holds afterwards."""

import gc
import io
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import psutil

from helpers.concept.manage import delete_concept, empty_trash
from helpers.export import PROGRAMS, export_for
from helpers.training.train import train

from .setting import a_root, make_concept

_WARM = 0.25  # of the concepts come before memory is looked at: caches fill up


def soak(count: int) -> dict[str, float]:
    """Go through `count` concepts, each with a run of two steps.

    Returns:
        `concepts`; `slope`, growth of the resident memory in kB a concept, a line fitted by least squares
        after the first quarter; `megabytes`, the memory at the end; `files` and `processes`, how many more
        are open than after the first concept.
    """
    process = psutil.Process()
    with a_root() as model:
        _live("first", model)
        files, processes = len(process.open_files()), len(process.children(recursive=True))
        memory = [_live(f"soak-{number}", model) for number in range(count)]
        late = memory[int(_WARM * count) :]
        return {
            "concepts": count,
            "slope": round(float(np.polyfit(range(len(late)), late, 1)[0]) / 1000, 1),
            "megabytes": round(memory[-1] / 1e6),
            "files": len(process.open_files()) - files,
            "processes": len(process.children(recursive=True)) - processes,
        }


def _live(name: str, model: Path) -> int:
    """The whole life of a concept; the resident memory after it, in bytes."""
    with redirect_stdout(io.StringIO()):
        concept = make_concept(name, model, max_train_steps=2)
        train(concept)
        for program in PROGRAMS:
            export_for(concept, program)
        delete_concept(name, sure=True)
        empty_trash(sure=True)
    gc.collect()
    return psutil.Process().memory_info().rss
