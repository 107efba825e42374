"""A training as it runs: loss curve, the latest samples, and a button to stop it."""

import html
import threading
import time

import ipywidgets

from ..concept import Concept
from ..training.interrupts import request_stop
from ..training.log import read_log, series
from ..training.outcome import NAME as OUTCOME
from ..training.samples import saved_samples

_EVERY = 2.0  # seconds
_WIDTH, _HEIGHT = 480, 120
_HINT = (
    "Where the button waits for the cell to end, press the kernel's ■ instead: it saves first, too. "
    "So does an empty file named <code>stop</code> in the concept's <code>training/</code>."
)


class LiveTraining(ipywidgets.VBox):
    """Shows what `training/log.jsonl` and `training/samples/` hold, every two seconds.

    It reads files only, so it works for a run in this process, in another, or on another machine that
    shares the folder. Make it before the run: it looks on from a thread until the run has ended.
    """

    def __init__(self, concept: Concept):
        self._folder, self._concept = concept.training_folder, concept
        self._since = time.time()
        self._curve = ipywidgets.HTML("Nothing has been logged yet.")
        self._strip = ipywidgets.Image(format="png", layout={"visibility": "hidden"})
        stop = ipywidgets.Button(description="Stop", button_style="warning", tooltip="Saves first")
        stop.on_click(lambda _: request_stop(self._folder))
        super().__init__([self._curve, self._strip, ipywidgets.HBox([stop, ipywidgets.HTML(_HINT)])])
        self.show()
        threading.Thread(target=self._look_on, daemon=True).start()

    def show(self) -> None:
        """Read the folder once and show what is there."""
        lines = read_log(self._folder)
        if lines:
            self._curve.value = _sentence(lines) + _curve(*series(lines, "fixed_loss"))
        samples = saved_samples(self._concept)
        if samples:
            self._strip.value = samples[max(samples)].read_bytes()
            self._strip.layout.visibility = "visible"

    def has_ended(self) -> bool:
        """Whether a run has ended since this view was made."""
        path = self._folder / OUTCOME
        return path.is_file() and path.stat().st_mtime >= self._since

    def _look_on(self) -> None:
        while not self.has_ended():
            self.show()
            time.sleep(_EVERY)
        self.show()


def _sentence(lines: list[dict]) -> str:
    losses = series(lines, "fixed_loss")[1]
    norms = series(lines, "norm")[1]
    parts = [f"step {lines[-1]['step']}"]
    parts += [f"fixed loss {losses[-1]:.4f} (at first {losses[0]:.4f})"] if losses else []
    parts += [f"length of the row {norms[-1]:.2f}"] if norms else []
    events = [line["event"] for line in lines if "event" in line]
    return f"<p>{' · '.join(parts)}<br>{html.escape(events[-1]) if events else ''}</p>"


def _curve(steps: list[int], values: list[float]) -> str:
    """A line as SVG: lighter than a plotting library while training has the processor."""
    if len(steps) < 2:
        return ""
    low, high, last = min(values), max(values), max(steps)
    points = " ".join(
        f"{_WIDTH * step / last:.1f},{_HEIGHT * (1 - (value - low) / ((high - low) or 1)):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    return (
        f'<svg viewBox="-4 -4 {_WIDTH + 8} {_HEIGHT + 8}" width="{_WIDTH}" height="{_HEIGHT}">'
        f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="2"/></svg>'
    )
