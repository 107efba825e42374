"""How long a short run takes on an idle machine, and beside another program that keeps every core busy.

OpenMP's threads spin while they wait for each other: quick on an idle machine, slow beside another program.
Ours spin for a short time only (`helpers/__init__.py`), and the miniature leaves the cores that others use
(`helpers.training.processes.FreeCores`). The same run with torch's own threads is beside it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psutil

from helpers.common import places

from .ledger import Ledger
from .setting import make_concept
from .timing import seconds_of

STEPS, AT_MOST = 150, 200.0  # seconds, after which a run is given up
_ROUNDS = 3
_LOOP = "while True: pass"


def measure_busy(ledger: Ledger) -> None:
    ledger.once("busy", busy_seconds)


def busy_seconds(steps: int = STEPS, rounds: int = _ROUNDS) -> dict:
    """Seconds of a whole process that takes `steps` steps: ours, and with torch's threads as they are."""
    seconds = {}
    for load, loops in (("idle", 0), ("busy", psutil.cpu_count())):
        with busy_loops(loops):
            seconds[load] = median(_run(steps, {}) for _ in range(rounds))
            seconds[f"{load}_torch"] = _run(steps, _as_torch_has_it())
    return {"steps": steps, "seconds": seconds}


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many other programs that never rest."""
    command = [sys.executable, "-c", _LOOP]
    loops = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _run(steps: int, environment: dict[str, str]) -> float:
    """Seconds of a run in a process of its own; `AT_MOST` if it takes longer."""
    concept = make_concept("bench-busy", max_train_steps=steps, stop_when_learned=False)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    try:
        return seconds_of(
            lambda: subprocess.run(
                [sys.executable, "-m", "helpers.training", concept.name],
                cwd=places.repository_folder(),
                env={**ours, **environment},
                timeout=AT_MOST,
                check=True,
                capture_output=True,
            )
        )
    except subprocess.TimeoutExpired:
        return AT_MOST


def _as_torch_has_it() -> dict[str, str]:
    """All cores all the time, and OpenMP's own patience."""
    return {"OMP_NUM_THREADS": str(psutil.cpu_count()), "GOMP_SPINCOUNT": "300000"}
