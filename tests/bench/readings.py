"""What curves and scores say, over the seeds."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from .plan import (
    LONG_RUNS,
    OUR_LOOKS,
    OWN_STEPS,
    RATES,
    SEEDS,
    SWEEP_SEEDS,
    THEIR_LOOKS,
    Run,
    our_run,
    their_run,
)

SHARE_OF_GAIN = 0.9
SHARE_OF_SCORE = 0.95

Measurements = dict[str, dict[str, Any]]


def time_to(seconds: Sequence[float], values: Sequence[float], target: float) -> float:
    """When a curve first comes down to the target, on a straight line between looks; infinity if never."""
    if values[0] <= target:
        return seconds[0]
    for (begin, above), (end, value) in pairwise(zip(seconds, values, strict=True)):
        if value <= target:
            return begin + (end - begin) * (above - target) / (above - value)
    return math.inf


def target_loss(found: Measurements) -> float | None:
    """The loss at nine tenths of the reachable gain, or None before the long runs.

    Reachable is what the best of the long runs gets, counted from the initializer's loss.
    """
    if any(run.measurement not in found for run in LONG_RUNS):
        return None
    curves = [found[run.measurement]["losses"] for run in LONG_RUNS]
    start = curves[-1][0]  # theirs: ours chose an initializer
    return start - SHARE_OF_GAIN * (start - min(min(losses) for losses in curves))


def loss_times(found: Measurements, runs: Sequence[Run]) -> list[float]:
    """For each run the seconds until the target loss, infinity if it never got there."""
    target = target_loss(found)
    curves = [found[run.measurement] for run in runs]
    return [time_to(curve["seconds"], curve["losses"], target) for curve in curves]


def best_rate(found: Measurements, kind: str) -> float:
    """The learning rate that comes to the target soonest; where none does, the lowest last loss.

    Only 1,000 steps count, whatever the rate.
    """

    def order(rate: float) -> tuple[float, float]:
        curves = [first_steps(found, their_run(kind, rate, seed)) for seed in SWEEP_SEEDS]
        target = target_loss(found)
        times = [time_to(curve["seconds"], curve["losses"], target) for curve in curves]
        return median(times), median(curve["losses"][-1] for curve in curves)

    return min(RATES, key=order)


def first_steps(found: Measurements, run: Run) -> dict[str, list[float]]:
    """A rival's curve up to its 1,000th step."""
    curve = found[run.measurement]
    count = sum(step <= OWN_STEPS for step in curve["steps"])
    return {name: curve[name][:count] for name in ("steps", "seconds", "losses")}


def score_at(found: Measurements, run: Run, look: int) -> float:
    """Identity times prompt, since a word can fail in either."""
    score = found[run.score(look)]
    return score["identity"] * score["prompt"]


def score_times(found: Measurements) -> dict[str, float]:
    """Seconds until the judge's score first is what the source's loop at its best rate comes to.

    Scores and seconds of a look are medians over the seeds. To reach: 95% of the highest of the source's.
    It may fall again afterwards, as the source's does.
    """
    rate = best_rate(found, "source")
    theirs = _score_curve(found, [their_run("source", rate, seed) for seed in SEEDS], THEIR_LOOKS)
    ours = _score_curve(found, [our_run(seed) for seed in SEEDS], OUR_LOOKS)
    target = SHARE_OF_SCORE * max(theirs[1])
    return {name: _first_at(*curve, target) for name, curve in (("source", theirs), ("ours", ours))}


def median_scores(found: Measurements, runs: Sequence[Run], look: int | str) -> dict[str, float]:
    """Identity and prompt of the runs' rows at a step, or of their `result`."""
    scores = [found[run.score(look)] for run in runs]
    return {name: round(median(score[name] for score in scores), 4) for name in ("identity", "prompt")}


def _score_curve(
    found: Measurements, runs: Sequence[Run], looks: Sequence[int]
) -> tuple[list[float], list[float]]:
    """By look the medians over runs: seconds, scores."""
    curves = [found[run.measurement] for run in runs]
    clocks = [dict(zip(curve["steps"], curve["seconds"], strict=True)) for curve in curves]
    seconds = [median(clock[look] for clock in clocks) for look in looks]
    return seconds, [median(score_at(found, run, look) for run in runs) for look in looks]


def _first_at(seconds: Sequence[float], scores: Sequence[float], target: float) -> float:
    return time_to(seconds, [-score for score in scores], -target)
