"""Times of steps, taken in turns."""

import time
from collections.abc import Callable
from statistics import median


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


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
