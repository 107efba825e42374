"""Clocks that leave out what is not to be counted."""

import time
from collections.abc import Callable
from statistics import median


class Clock:
    """Counts the seconds spent inside `with clock:`."""

    def __init__(self):
        self.seconds = 0.0

    def __enter__(self) -> "Clock":
        self._entered = time.perf_counter()
        return self

    def __exit__(self, *exception) -> None:
        self.seconds += time.perf_counter() - self._entered


class Laps:
    """What takes how long, one thing after the other: `seconds` by name."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._began, 3)
        self._began = now


def seconds_of(call: Callable[[], object]) -> float:
    with Clock() as clock:
        call()
    return clock.seconds


def side_by_side(
    steps: dict[str, Callable[[], object]],
    rounds: int,
    in_turn: int,
    before_turn: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """The median seconds of each step, in turns, so that a slow minute of the machine is a slow one for all.

    Args:
        steps: by name.
        rounds: turns of each; the first one warms up and is not counted.
        in_turn: steps in a turn.
        before_turn: is called with the name, and not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            before_turn(name)
            taken = [seconds_of(step) for _ in range(in_turn)]
            seconds[name] += taken if number else []
    return {name: median(values) for name, values in seconds.items()}
