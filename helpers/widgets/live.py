"""A training as it runs: progress, curves, samples beside the pictures, and buttons to stop and go on."""

import contextlib
import html
import threading
import time

import ipywidgets

from ..concept import Concept
from ..errors import UserError
from ..images import image_paths, load_images
from ..training.follow import LogFollower
from ..training.interrupts import request_stop
from ..training.log import row_norms, series
from ..training.outcome import NAME as OUTCOME
from ..training.resume import OUTPUT, last_output, resume, state_of
from .curves import curve, curves
from .picture_row import picture_row
from .progress import Progress
from .sample_slider import SampleSlider

_EVERY = 2.0  # seconds
_ROW = {"flex_flow": "row wrap", "align_items": "flex-start"}
_HINT = (
    "Where the button waits for the cell to end, press the kernel's ■ instead: it saves first, too. "
    "So does an empty file named <code>stop</code> in the concept's <code>training/</code>."
)


class LiveTraining(ipywidgets.VBox):
    """Shows what a concept's `training/` holds, every two seconds.

    It reads files only, so it works for a run in this process, in another, or on another machine that
    shares the folder, and after the end. A thread looks on until a run has ended that began under its
    eyes; a run that was stopped may go on, so there it keeps looking.
    """

    def __init__(self, concept: Concept):
        self._folder, self._concept = concept.training_folder, concept
        self._since, self._log, self._shown = time.time(), LogFollower(concept.training_folder), None
        self._lock = threading.Lock()
        self.progress, self.curves = Progress(), ipywidgets.HTML()
        self.pictures, self.samples = ipywidgets.HTML(_own_pictures(concept)), SampleSlider(concept)
        self.stop = ipywidgets.Button(description="Stop", button_style="warning", tooltip="Saves first")
        self.stop.style.text_color = "#1a1a1a"  # white on orange, as on a light page, is hard to read
        self.resume = ipywidgets.Button(
            description="Resume", disabled=True, tooltip="Goes on where it was stopped"
        )
        self.message = ipywidgets.HTML(_HINT)
        self.stop.on_click(lambda _: request_stop(self._folder))
        _heard_while_a_cell_runs(self.stop)
        self.resume.on_click(self._resume)
        seen = ipywidgets.HBox([self.pictures, self.samples], layout=_ROW)
        buttons = ipywidgets.HBox([self.stop, self.resume])
        super().__init__([self.progress, self.curves, seen, buttons, self.message])
        self._look()
        threading.Thread(target=self._look_on, daemon=True).start()

    def show(self) -> None:
        """Read what is new in the folder and show it."""
        grown = self._log.read()
        state = state_of(self._concept, self._log.lines)
        if grown or state != self._shown:
            self.progress.show(self._log.lines, state, self._concept.training.max_train_steps)
            self.curves.value = _curves(self._concept, self._log.lines)
            self.stop.disabled = state != "running"  # one that only starts would not know of it yet
            self.resume.disabled = state not in ("stopped", "broken")
            self.message.value = self._broken() if state == "broken" else _HINT
            self._shown = state
        self.samples.show()

    def has_ended(self) -> bool:
        """Whether a run has ended since this view was made."""
        path = self._folder / OUTCOME
        return path.is_file() and path.stat().st_mtime >= self._since

    def _resume(self, _button) -> None:
        """The state is read anew: another view may have been quicker, or the cell been run again."""
        if state_of(self._concept, self._log.lines) in ("stopped", "broken"):
            resume(self._concept)
        self._look()

    def _broken(self) -> str:
        said = html.escape(last_output(self._folder))
        return f"It could not go on: <b>{said}</b> All that it said is in <code>training/{OUTPUT}</code>."

    def _look_on(self) -> None:
        while self.comm is not None and not self._is_over():
            time.sleep(_EVERY)
            self._look()

    def _is_over(self) -> bool:
        return self._shown in ("learned", "ceiling", "failed") and self.has_ended()

    def _look(self) -> None:
        # The folder may be renamed under its eyes, by a run that starts over: then look again next time.
        with contextlib.suppress(OSError, UserError), self._lock:
            self.show()


def _heard_while_a_cell_runs(widget: ipywidgets.Widget) -> None:
    """Let JupyterLab send what is pressed to a subshell, as it wants to.

    ipykernel 7.4 hands it to the shell that spoke to the widget last instead: to the one that trains.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = None


def _curves(concept: Concept, lines: list[dict]) -> str:
    norms = row_norms(concept, lines) or {"": series(lines, "norm")}  # a log of an earlier version
    drawn = [curve("Fixed loss", *series(lines, "fixed_loss")), curves("Length of each row", norms)]
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(drawn)}</div>' if any(drawn) else ""


def _own_pictures(concept: Concept) -> str:
    """The concept's pictures; nothing where there are none, or one is damaged: the run will say so."""
    try:
        names, images = [path.name for path in image_paths(concept)], load_images(concept)
    except UserError:
        return ""
    return picture_row("Your pictures", images, names)
