"""From measurements to the figures that are claimed. A ratio is theirs over ours: larger is better."""

import math
from collections.abc import Callable
from statistics import mean, median, stdev
from typing import Any

from .plan import (
    OWN_RATE,
    OWN_STEPS,
    SEEDS,
    WORD_COUNTS,
    alone,
    our_run,
    seeds_of,
    their_run,
    together,
)
from .readings import (
    Measurements,
    best_rate,
    first_steps,
    loss_times,
    median_scores,
    score_times,
    time_to,
)

_KINDS = ("source", "diffusers")


def figures(found: Measurements) -> dict[str, Any]:
    """All figures by their keys; None for one that lacks a measurement, or that no run came to."""
    return {name: _or_none(figure, found) for name, figure in _FIGURES.items()}


def gain_seconds(found: Measurements) -> dict[str, dict[str, Any]]:
    """By loop: median `seconds` to nine tenths of the gain, and how many of the runs got there.

    Where most did not, `seconds` is how long they ran, a lower bound.
    """
    runs = {"ours": [our_run(seed) for seed in SEEDS]}
    for kind in _KINDS:
        best = best_rate(found, kind)
        runs[kind] = [their_run(kind, OWN_RATE, seed) for seed in seeds_of(kind)]
        runs[f"{kind}_best_lr"] = [their_run(kind, best, seed) for seed in seeds_of(kind)]
    return {name: _summary(found, own) for name, own in runs.items()}


def scores(found: Measurements) -> dict[str, dict[str, float]]:
    """The judge's median identity and prompt of each loop's results, and of the initializer alone."""
    medians = {"initializer": found["scores/initializer"]}
    medians["ours"] = median_scores(found, [our_run(seed) for seed in SEEDS], "result")
    for kind in _KINDS:
        for name, rate in ((kind, OWN_RATE), (f"{kind}_best_lr", best_rate(found, kind))):
            runs = [their_run(kind, rate, seed) for seed in seeds_of(kind)]
            medians[name] = median_scores(found, runs, OWN_STEPS)
    return medians


def many(found: Measurements) -> dict[str, Any]:
    """Words learned beside others against five runs of one alone, by their gain in the shared loss.

    By the number of words in a run: how many of them are `within_two` standard deviations of the five
    runs' mean, and how many deviations the `farthest` is away from it.
    """
    gains = [found[alone(seed)]["gains"][0] for seed in SEEDS]
    middle, deviation = mean(gains), stdev(gains)
    result: dict[str, Any] = {"alone": {"mean": round(middle, 6), "deviation": round(deviation, 6)}}
    for count in WORD_COUNTS[1:]:
        away = [abs(gain - middle) / deviation for gain in found[together(count)]["gains"]]
        within = sum(distance <= 2 for distance in away)
        result[str(count)] = {"within_two": within, "farthest": round(max(away), 2)}
    return result


def _summary(found: Measurements, runs: list) -> dict[str, Any]:
    times = loss_times(found, runs)
    reached = sum(map(math.isfinite, times))
    ran = [found[run.measurement]["seconds"][-1] for run in runs]
    middle = median(times)
    return {
        "seconds": round(middle if math.isfinite(middle) else median(ran), 2),
        "reached": reached,
        "runs": len(runs),
    }


def _gain_ratio(name: str) -> Callable[[Measurements], float]:
    """Their seconds over ours; None where most of our runs did not get there."""

    def ratio(found: Measurements) -> float:
        seconds = gain_seconds(found)
        if seconds["ours"]["reached"] <= len(SEEDS) // 2:
            return math.nan
        return seconds[name]["seconds"] / seconds["ours"]["seconds"]

    return ratio


def _final_gain_ratio(found: Measurements) -> float:
    """The time of the source's 1,000 steps, over ours to the loss at which they end."""
    theirs = [first_steps(found, their_run("source", OWN_RATE, seed)) for seed in SEEDS]
    end = median(curve["losses"][-1] for curve in theirs)
    ours = [found[our_run(seed).measurement] for seed in SEEDS]
    our_time = median(time_to(curve["seconds"], curve["losses"], end) for curve in ours)
    return median(curve["seconds"][-1] for curve in theirs) / our_time


def before_step_1(found: Measurements) -> dict[str, float]:
    """What ours does before its first step, in seconds: medians over the seeds."""
    profiles = [found[our_run(seed).measurement]["before_step_1"] for seed in SEEDS]
    return {name: round(median(one[name] for one in profiles), 3) for name in profiles[0]}


def _score_ratio(found: Measurements) -> float:
    seconds = score_times(found)
    return seconds["source"] / seconds["ours"]


def _score_seconds(found: Measurements) -> dict[str, float | None]:
    """None for a loop that did not come to the score."""
    seconds = score_times(found).items()
    return {name: round(value, 2) if math.isfinite(value) else None for name, value in seconds}


def _sample_ratio(found: Measurements) -> float:
    """A source's step is one sample; a step of ours is a batch."""
    steps = found["steps"]
    return steps["seconds"]["source"] / (steps["seconds"]["ours"] / steps["batch"])


def _step_ratio(measurement: str, ours: str) -> Callable[[Measurements], float]:
    def ratio(found: Measurements) -> float:
        seconds = found[measurement]["seconds"]
        return seconds["source"] / seconds[ours]

    return ratio


def _or_none(figure: Callable[[Measurements], Any], found: Measurements) -> Any:
    try:
        value = figure(found)
    except KeyError:  # a measurement that has not been made
        return None
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value


def _busy(found: Measurements, one: str, other: str) -> float:
    seconds = found["busy"]["seconds"]
    return round(seconds[one] / seconds[other], 2)


_FIGURES: dict[str, Callable[[Measurements], Any]] = {
    "gain_time_ratio_source": _gain_ratio("source"),
    "gain_time_ratio_best_lr": _gain_ratio("source_best_lr"),
    "gain_seconds": gain_seconds,
    "final_gain_time_ratio_source": _final_gain_ratio,
    "score_time_ratio_best_lr": _score_ratio,
    "score_seconds": _score_seconds,
    "before_step_1": before_step_1,
    "scores": scores,
    "best_lr": lambda found: {kind: best_rate(found, kind) for kind in _KINDS},
    "step_time_ratio_batch1": _step_ratio("steps", "ours_batch1"),
    "step_time_ratio_batch1_compiled": _step_ratio("steps/compiled", "ours_compiled"),
    "sample_time_ratio": _sample_ratio,
    "sd15_step_ratio_equal_precision": _step_ratio("sd15/steps", "ours"),
    "sd15_step_ratio_bf16": _step_ratio("sd15/steps", "ours_bf16"),
    "seconds_per_concept": lambda found: {
        str(count): found[together(count)]["seconds_per_concept"] for count in WORD_COUNTS
    },
    "many": many,
    "busy_time_ratio": lambda found: _busy(found, "busy", "idle"),
    "idle_time_ratio": lambda found: _busy(found, "idle", "idle_torch"),
    "extra_training_bytes": lambda found: found["memory/sd15/ours"]["extra_bytes"],
    "whole_table_training_bytes": lambda found: found["memory/sd15/source"]["extra_bytes"],
}
