"""How far a run has come, how fast it goes, and how long it may yet take."""

import html
from typing import Any

import ipywidgets

from ..training.log import series
from ..training.resume import State

_LATELY = 50  # steps
_STYLES = {"learned": "success", "ceiling": "success", "stopped": "warning", "failed": "danger"}
_WAITING = "Nothing has been logged yet."
_STARTING = "A run starts: it loads the model first."


class Progress(ipywidgets.VBox):
    """A bar over the steps, and the same in words."""

    def __init__(self):
        self.bar = ipywidgets.IntProgress(description="Steps", layout={"width": "min(100%, 480px)"})
        self.words = ipywidgets.HTML()
        super().__init__([self.bar, self.words])

    def show(self, lines: list[dict[str, Any]], state: State, most: int) -> None:
        """Show a run by its log.

        Args:
            most: steps that it takes at most.
        """
        step = lines[-1]["step"] if lines else 0
        self.bar.max = max(most, step)
        self.bar.value = step
        self.bar.bar_style = _STYLES.get(state, "")
        self.words.value = "<br>".join(map(html.escape, _sentences(lines, state, step, most)))


def steps_a_second(lines: list[dict[str, Any]]) -> float | None:
    """Of this sitting's last steps, looking and samples counted; None before its second step."""
    timed = []
    for line in reversed(lines):
        if "event" in line or len(timed) > _LATELY:
            break  # an event: a sitting begins, or has ended
        if "seconds" in line:
            timed.append((line["step"], line["seconds"]))
    steps, seconds = (timed[0][i] - timed[-1][i] if timed else 0 for i in (0, 1))
    return steps / seconds if seconds > 0 else None


def _sentences(lines: list[dict[str, Any]], state: State, step: int, most: int) -> list[str]:
    if not lines:
        return [_STARTING if state == "starting" else _WAITING]
    said = [line["event"] for line in lines if "event" in line][-1:]
    return [
        " · ".join([f"step {step} of at most {most}", *_pace(lines, state, step, most), *_values(lines)]),
        *([_STARTING] if state == "starting" else said),
    ]


def _pace(lines: list[dict[str, Any]], state: State, step: int, most: int) -> list[str]:
    pace = steps_a_second(lines) if state == "running" else None
    if pace is None:
        return []
    left = f"at most {_duration((most - step) / pace)} left; it may end sooner"
    return [f"{pace:.1f} steps a second" if pace >= 1 else f"{1 / pace:.1f} seconds a step", left]


def _values(lines: list[dict[str, Any]]) -> list[str]:
    losses, norms = series(lines, "fixed_loss")[1], series(lines, "norm")[1]
    words = [f"fixed loss {losses[-1]:.4f} (at first {losses[0]:.4f})"] if losses else []
    return words + ([f"length of the row {norms[-1]:.2f}"] if norms else [])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
