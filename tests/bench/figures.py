"""From measurements to the figures that are claimed. Beside a rival a ratio is theirs over ours."""

from collections.abc import Callable
from typing import Any

Measurements = dict[str, dict[str, Any]]


def figures(found: Measurements) -> dict[str, Any]:
    """All figures by their keys; None for one that lacks a measurement."""
    return {name: _or_none(figure, found) for name, figure in _FIGURES.items()}


def _or_none(figure: Callable[[Measurements], float], found: Measurements) -> float | None:
    try:
        return round(figure(found), 3)
    except KeyError:  # a measurement that has not been made
        return None


def _ratio(measurement: str, one: str, other: str) -> Callable[[Measurements], float]:
    def ratio(found: Measurements) -> float:
        seconds = found[measurement]["seconds"]
        return seconds[one] / seconds[other]

    return ratio


def _sample_ratio(found: Measurements) -> float:
    """A source's step is one sample; a step of ours is a batch."""
    steps = found["steps"]
    return steps["seconds"]["source"] / (steps["seconds"]["ours"] / steps["batch"])


_FIGURES: dict[str, Callable[[Measurements], float]] = {
    "step_time_ratio_batch1": _ratio("steps", "source", "ours_batch1"),
    "step_time_ratio_batch1_compiled": _ratio("steps/compiled", "source", "ours_compiled"),
    "sample_time_ratio": _sample_ratio,
    "sd15_step_ratio_equal_precision": _ratio("sd15/steps", "source", "ours"),
    "sd15_step_ratio_bf16": _ratio("sd15/steps", "source", "ours_bf16"),
    "many_time_ratio": _ratio("many", "many", "one"),
    "busy_time_ratio": _ratio("busy", "busy", "idle"),
    "idle_time_ratio": _ratio("busy", "idle", "idle_torch"),
    "extra_training_bytes": lambda found: found["memory/sd15/ours"]["extra_bytes"],
    "whole_table_training_bytes": lambda found: found["memory/sd15/source"]["extra_bytes"],
}
