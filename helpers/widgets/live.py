"""A training as it runs: progress, curves, samples beside the pictures, and buttons to stop and go on."""

import contextlib
import html
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
from IPython.display import DisplayHandle, display
from ipywidgets import HTML, HBox, IntProgress, SelectionSlider, Stack, VBox, Widget, jsdlink
from tqdm import tqdm

from ..common.errors import UserError
from ..concept.concept import Concept
from ..dataset.images import image_paths, load_images
from ..training.figures import SCORE, curves_of, plot_curves, read_strip, sample_prompts, saved_samples
from ..training.records import (
    OUTPUT,
    RESUMABLE,
    SUMMARY_FILE,
    State,
    last_output,
    logged,
    modified_at,
    read_log,
    request_stop,
    resume,
    state_of,
    steps_per_second,
)
from . import kit

_EVERY = 2.0  # seconds
_REST = 30  # times as long as the curves took to draw, before they are drawn again: the run waits meanwhile
_STYLES = {"learned": "success", "ceiling": "success", "stopped": "warning", "failed": "danger"}
_WAITING = "Nothing has been logged yet."
_STARTING = "A run is starting: it loads the model first."
_KILLED = (
    "It ended in the middle: after an error, a restart of the kernel, or since the memory was full. "
    "Resume goes on from what was saved last."
)
_TOLD = "If you reloaded this page, run the cells below again: what they show is the run before."
_HINT = (
    "If Stop waits for the cell to end, press the kernel's ■ instead: that saves first, too. "
    "An empty file named <code>stop</code> in the concept's <code>training/</code> does the same."
)


class LiveTraining(VBox):
    """Shows what is in a concept's `training/`, every two seconds.

    It reads files only, so it works for a run in this process, in another, or on another machine that
    shares the folder, and after the end. A thread watches until a run has ended that it has seen running;
    after one that was stopped it goes on watching, since that one may be resumed.
    """

    def __init__(self, concept: Concept):
        self._folder, self._concept = concept.training_folder, concept
        self._ended_before, self._lines, self._shown = modified_at(self._folder / SUMMARY_FILE), [], None
        self._lock = threading.Lock()
        self._displays: list[tuple[Callable[[Concept], Any], DisplayHandle]] = []
        self._resumed, self._top, self._curves_due = False, _IntoView(), 0.0
        self.bar = IntProgress(description="Steps", layout={"width": "min(100%, 480px)"})
        self.words, self.curves, self.message = HTML(), HTML(), HTML(_HINT)
        self.pictures, self.samples = HTML(_own_pictures(concept)), SampleSlider(concept)
        ask_to_stop = partial(request_stop, self._folder)
        self.stop = kit.button("Stop", partial(self._do, ask_to_stop), "Saves first", "warning")
        _heard_while_a_cell_runs(self.stop)
        self.resume = kit.button("Resume", partial(self._do, self._resume), "Goes on where it was stopped")
        self.resume.disabled = True
        seen = HBox([self.pictures, self.samples], layout=kit.ROW)
        buttons = HBox([self.stop, self.resume])
        super().__init__([self._top, self.bar, self.words, self.curves, seen, buttons, self.message])
        self._refresh()
        threading.Thread(target=self._watch, daemon=True).start()

    def show(self) -> None:
        """Read the folder and show what is new."""
        before, self._lines = self._lines, read_log(self._folder)
        state = state_of(self._concept, self._lines)
        if self._lines != before or state != self._shown:
            self._read_settings(state)
            self._show_progress(state)
            self._show_curves(state)
            self.stop.disabled = state != "running"  # one that only starts would not know of it yet
            self.resume.disabled = state not in RESUMABLE
            self._say(state)
            if state == "running" and self._shown != "running":
                self._top.scroll_here()
            self._shown = state
        self.samples.show()
        if self._resumed and state in _STYLES:
            self._resumed = False
            for of, shown in self._displays:
                shown.update(of(self._concept))
            if self._displays:  # JupyterLab forgets which output is which
                self.message.value = _TOLD

    def _say(self, state: State) -> None:
        said = _KILLED if state == "killed" else _HINT
        self.message.value = _on_broken_run(self._folder) if state == "broken" else said

    def _read_settings(self, state: State) -> None:
        """Another notebook may have changed them since the last run."""
        if self._shown not in (None, state):
            with contextlib.suppress(UserError):
                self._concept = Concept.load(self._concept.name)

    def _show_progress(self, state: State) -> None:
        step, most = self._lines[-1]["step"] if self._lines else 0, self._concept.training.max_train_steps
        self.bar.max, self.bar.value = max(most, step), step
        self.bar.bar_style = _STYLES.get(state, "")
        self.words.value = "<br>".join(map(html.escape, _sentences(self._lines, state, step, most)))

    def _show_curves(self, state: State) -> None:
        now = time.monotonic()
        if state != self._shown or not self._lines or now >= self._curves_due:
            self.curves.value = _curves(self._concept, self._lines)
            self._curves_due = now + _REST * (time.monotonic() - now)

    def tell(self, of: Callable[[Concept], Any]) -> None:
        """Display what `of` makes of the concept below the cell, and again when a resumed run has ended."""
        self._displays.append((of, display(of(self._concept), display_id=True)))

    def has_ended(self) -> bool:
        """Whether a run has ended since this view was made."""
        return modified_at(self._folder / SUMMARY_FILE) not in (0, self._ended_before)

    def _do(self, action: Callable[[], Any]) -> None:
        if why := kit.error_of(action):
            self.message.value = kit.problem(why)

    def _resume(self) -> None:
        """Check the state again: another view may have been quicker, or the cell may run again."""
        if state_of(self._concept, self._lines) in RESUMABLE:
            resume(self._concept)
            self._resumed = True
        self._refresh()

    def _watch(self) -> None:
        while not (self._shown in ("learned", "ceiling", "failed") and self.has_ended()):
            time.sleep(_EVERY)
            if self.comm is None:  # closed meanwhile
                return
            self._refresh()

    def _refresh(self) -> None:
        # A run that starts over may rename the folder just now: then the next time will do.
        with contextlib.suppress(OSError, UserError), self._lock:
            self.show()


class _IntoView(anywidget.AnyWidget):
    """The top of the view, to scroll to: JupyterLab's “Run All” scrolls to the last cell."""

    _esm = """export default {
      render({ model, el }) {
        model.on("msg:custom", () => el.scrollIntoView({ block: "start" }));
      },
    };"""

    def scroll_here(self) -> None:
        """Scroll the page to it, if there is one."""
        self.send({})


def _heard_while_a_cell_runs(widget: Widget) -> None:
    """Let a subshell handle clicks, as JupyterLab asks for.

    ipykernel 7.4 gives them to the shell that last sent to the widget instead: the one that trains.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = None


def _curves(concept: Concept, lines: list[dict]) -> str:
    """Without the score, which changes seldom."""
    panels = {title: drawn for title, drawn in curves_of(concept, lines).items() if title != SCORE}
    has_begun = any(steps for drawn in panels.values() for steps, _ in drawn.values())
    return plot_curves(panels).as_html() if has_begun else ""


def _on_broken_run(folder: Path) -> str:
    reason = html.escape(last_output(folder))
    return f"It could not go on: <b>{reason}</b> Its full output is in <code>training/{OUTPUT}</code>."


def _own_pictures(concept: Concept) -> str:
    """The concept's pictures; nothing if there are none or one is damaged, as the run will say."""
    try:
        names, images = [path.name for path in image_paths(concept)], load_images(concept)
    except UserError:
        return ""
    return kit.picture_row("Your pictures", images, names)


def _sentences(lines: list[dict[str, Any]], state: State, step: int, most: int) -> list[str]:
    """A run's progress, speed and time left of at most `most` steps, and its last event."""
    if not lines:
        return [_STARTING if state == "starting" else _WAITING]
    words = [f"step {step} of at most {most}"]
    if state == "running" and (pace := steps_per_second(lines)):
        left = tqdm.format_interval(max(0, round((most - step) / pace)))
        words += [f"{pace:.1f} steps a second" if pace >= 1 else f"{1 / pace:.1f} seconds a step"]
        words += [f"at most {left} left; it may end sooner"]
    losses, norms = logged(lines, "fixed_loss")[1], logged(lines, "norm")[1]
    words += [f"fixed loss {losses[-1]:.4f} (at first {losses[0]:.4f})"] if losses else []
    words += [f"length of the row {norms[-1]:.2f}"] if norms else []
    last_event = [line["event"] for line in lines if "event" in line][-1:]
    return [" · ".join(words), *([_STARTING] if state == "starting" else last_event)]


class SampleSlider(VBox):
    """Shows the newest samples, or others if the slider is moved from its end.

    The slider is linked in the browser, too, so that it works while the kernel is busy.
    """

    def __init__(self, concept: Concept):
        self._concept, self._prompts = concept, sample_prompts(concept)
        self._made: dict[tuple[Path, int], HTML] = {}
        hidden = {"visibility": "hidden"}
        self.slider = SelectionSlider(options=[0], description="Step", layout=hidden)
        self.stack = Stack()
        self._filling, self._link = False, None
        self.slider.observe(self._turn, "index")
        super().__init__([self.stack, self.slider])

    def close(self) -> None:
        """Close the link, too, which would keep all of it in memory."""
        if self._link:
            self._link.close()
        super().close()

    def show(self) -> None:
        """Show the samples that are new on disk."""
        samples = saved_samples(self._concept)
        keys = [(path, path.stat().st_mtime_ns) for path in samples.values()]
        if keys == list(self._made):
            return
        self._made = {
            key: self._made.get(key) or self._page(step, key[0])
            for step, key in zip(samples, keys, strict=True)
        }
        self._fill(list(samples))

    def _fill(self, steps: list[int]) -> None:
        """Give the slider its steps, and leave it where it was: at the newest, or at the same step."""
        at, follows = self.slider.value, self.slider.index == len(self.slider.options) - 1
        index = len(steps) - 1 if follows or at not in steps else steps.index(at)
        if len(steps) < len(self.stack.children):  # a run that starts over
            self.stack.selected_index = None
        kit.show_in(self.stack, list(self._made.values()))
        self._filling = True
        self.slider.options = steps or [0]  # sent apart from the index: a page that gets both keeps its own
        self.slider.index = max(index, 0)
        self._filling = False
        self.slider.layout.visibility = "visible" if len(steps) > 1 else "hidden"
        self._turn()
        if steps and not self._link:  # not before: a page can't show a child that isn't there
            self._link = jsdlink((self.slider, "index"), (self.stack, "selected_index"))

    def _turn(self, _change=None) -> None:
        if not self._filling:
            self.stack.selected_index = self.slider.index if self.stack.children else None

    def _page(self, step: int, path: Path) -> HTML:
        pictures = read_strip(path)
        texts = [f"step {step}: {prompt}" for prompt in self._prompts[: len(pictures)]]
        return HTML(kit.picture_row(f"Drawn at step {step}", pictures, texts))
