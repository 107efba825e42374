"""A training as it runs: progress, curves, samples beside the pictures, and buttons to stop and go on."""

import contextlib
import html
import io
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from tqdm import tqdm

from ..common.errors import UserError
from ..concept.concept import Concept
from ..dataset.images import image_paths, load_images
from ..training.control import OUTPUT, State, last_output, request_stop, resume, state_of
from ..training.figures import read_strip, sample_prompts, saved_samples
from ..training.records import SUMMARY_FILE, logged, read_log, row_norms, steps_per_second
from .kit import ROW, button, picture_row

_EVERY = 2.0  # seconds
_ENDS = ("learned", "ceiling", "stopped", "failed")
_HINT = (
    "If Stop waits for the cell to end, press the kernel's ■ instead: that saves first, too. "
    "An empty file named <code>stop</code> in the concept's <code>training/</code> does the same."
)


class LiveTraining(ipywidgets.VBox):
    """Shows what a concept's `training/` holds, every two seconds.

    It reads files only, so it works for a run in this process, in another, or on another machine that
    shares the folder, and after the end. A thread looks on until a run has ended that began under its
    eyes; a run that was stopped may go on, so there it keeps looking.
    """

    def __init__(self, concept: Concept):
        self._folder, self._concept = concept.training_folder, concept
        self._since, self._lines, self._shown = time.time(), [], None
        self._lock = threading.Lock()
        self._displays: list[tuple[Callable[[Concept], Any], DisplayHandle]] = []
        self._resumed, self._top = False, _IntoView()
        self.progress, self.curves = Progress(), ipywidgets.HTML()
        self.pictures, self.samples = ipywidgets.HTML(_own_pictures(concept)), SampleSlider(concept)
        self.stop = button("Stop", lambda: request_stop(self._folder), "Saves first", "warning")
        _heard_while_a_cell_runs(self.stop)
        self.resume = button("Resume", self._resume, "Goes on where it was stopped")
        self.resume.disabled = True
        self.message = ipywidgets.HTML(_HINT)
        seen = ipywidgets.HBox([self.pictures, self.samples], layout=ROW)
        buttons = ipywidgets.HBox([self.stop, self.resume])
        super().__init__([self._top, self.progress, self.curves, seen, buttons, self.message])
        self._look()
        threading.Thread(target=self._look_on, daemon=True).start()

    def show(self) -> None:
        """Read what is new in the folder and show it."""
        before, self._lines = self._lines, read_log(self._folder)
        state = state_of(self._concept, self._lines)
        if self._lines != before or state != self._shown:
            self.progress.show(self._lines, state, self._concept.training.max_train_steps)
            self.curves.value = _curves(self._concept, self._lines)
            self.stop.disabled = state != "running"  # one that only starts would not know of it yet
            self.resume.disabled = state not in ("stopped", "broken")
            self.message.value = _on_broken_run(self._folder) if state == "broken" else _HINT
            if state == "running" and self._shown != "running":
                self._top.come()
            self._shown = state
        self.samples.show()
        if self._resumed and state in _ENDS:
            self._resumed = False
            for of, shown in self._displays:
                shown.update(of(self._concept))

    def tell(self, of: Callable[[Concept], Any]) -> None:
        """Display what `of` makes of the concept below the cell, and anew when a resumed run has ended."""
        self._displays.append((of, display(of(self._concept), display_id=True)))

    def has_ended(self) -> bool:
        """Whether a run has ended since this view was made."""
        path = self._folder / SUMMARY_FILE
        return path.is_file() and path.stat().st_mtime >= self._since

    def _resume(self) -> None:
        """The state is read anew: another view may have been quicker, or the cell been run again."""
        if state_of(self._concept, self._lines) in ("stopped", "broken"):
            resume(self._concept)
            self._resumed = True
        self._look()

    def _look_on(self) -> None:
        while self.comm is not None:
            if self._shown in ("learned", "ceiling", "failed") and self.has_ended():
                return
            time.sleep(_EVERY)
            self._look()

    def _look(self) -> None:
        # The folder may be renamed under its eyes, by a run that starts over: then look again next time.
        with contextlib.suppress(OSError, UserError), self._lock:
            self.show()


class _IntoView(anywidget.AnyWidget):
    """Where the view begins: JupyterLab's “Run All” scrolls to the last cell, and past it."""

    _esm = """export default {
      render({ model, el }) {
        model.on("msg:custom", () => el.scrollIntoView({ block: "start" }));
      },
    };"""

    def come(self) -> None:
        """Scroll the page to it, if it is on one."""
        self.send({})


def _heard_while_a_cell_runs(widget: ipywidgets.Widget) -> None:
    """Let JupyterLab send what is pressed to a subshell, as it wants to.

    ipykernel 7.4 hands it to the shell that spoke to the widget last instead: to the one that trains.
    """
    if widget.comm is not None:
        widget.comm._reply_subshell_for = None


def _curves(concept: Concept, lines: list[dict]) -> str:
    norms = row_norms(concept, lines) or {"": logged(lines, "norm")}  # a log of an earlier version
    drawn = [curves("Fixed loss", {"": logged(lines, "fixed_loss")}), curves("Length of each row", norms)]
    return (
        f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">{"".join(drawn)}</div>'
        if any(drawn)
        else ""
    )


def _on_broken_run(folder: Path) -> str:
    reason = html.escape(last_output(folder))
    return f"It could not go on: <b>{reason}</b> Its full output is in <code>training/{OUTPUT}</code>."


def _own_pictures(concept: Concept) -> str:
    """The concept's pictures; nothing where there are none, or one is damaged: the run will say so."""
    try:
        names, images = [path.name for path in image_paths(concept)], load_images(concept)
    except UserError:
        return ""
    return picture_row("Your pictures", images, names)


# How far a run has come, how fast it goes, and how long it may yet take.
_STYLES = {"learned": "success", "ceiling": "success", "stopped": "warning", "failed": "danger"}
_WAITING = "Nothing has been logged yet."
_STARTING = "A run is starting: it loads the model first."


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


def _sentences(lines: list[dict[str, Any]], state: State, step: int, most: int) -> list[str]:
    if not lines:
        return [_STARTING if state == "starting" else _WAITING]
    words = [f"step {step} of at most {most}", *_pace(lines, state, step, most)]
    losses, norms = logged(lines, "fixed_loss")[1], logged(lines, "norm")[1]
    words += [f"fixed loss {losses[-1]:.4f} (at first {losses[0]:.4f})"] if losses else []
    words += [f"length of the row {norms[-1]:.2f}"] if norms else []
    last_event = [line["event"] for line in lines if "event" in line][-1:]
    return [" · ".join(words), *([_STARTING] if state == "starting" else last_event)]


def _pace(lines: list[dict[str, Any]], state: State, step: int, most: int) -> list[str]:
    pace = steps_per_second(lines) if state == "running" else None
    if pace is None:
        return []
    seconds = max(0, round((most - step) / pace))
    left = f"at most {tqdm.format_interval(seconds)} left; it may end sooner"
    return [f"{pace:.1f} steps a second" if pace >= 1 else f"{1 / pace:.1f} seconds a step", left]


# The samples of a run, one step at a time, with a slider back through them.


class SampleSlider(ipywidgets.VBox):
    """Shows the newest sample, and stays with it until the reader moves the slider from its end.

    The slider is linked on the page as well, so that it moves while the kernel is busy.
    """

    def __init__(self, concept: Concept):
        self._concept, self._prompts = concept, sample_prompts(concept)
        self._made: dict[tuple[Path, int], ipywidgets.HTML] = {}
        self.slider = ipywidgets.SelectionSlider(
            options=[0], description="Step", continuous_update=True, layout={"visibility": "hidden"}
        )
        self.stack = ipywidgets.Stack()
        self._filling, self._link = False, None
        self.slider.observe(self._turn, "index")
        super().__init__([self.stack, self.slider])

    def show(self) -> None:
        """Take in the samples that are new on disk."""
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
        """New options, with the slider where it was: at the newest, or at the step that is looked at."""
        at, follows = self.slider.value, self.slider.index == len(self.slider.options) - 1
        index = len(steps) - 1 if follows or at not in steps else steps.index(at)
        if len(steps) < len(self.stack.children):  # a run that starts over
            self.stack.selected_index = None
        self.stack.children = list(self._made.values())
        self._filling = True
        self.slider.options = steps or [0]  # sent apart from the index: a page that gets both keeps its own
        self.slider.index = max(index, 0)
        self._filling = False
        self.slider.layout.visibility = "visible" if len(steps) > 1 else "hidden"
        self._turn()
        if steps and not self._link:  # not before: a page can't show a child that isn't there
            self._link = ipywidgets.jsdlink((self.slider, "index"), (self.stack, "selected_index"))

    def _turn(self, _change=None) -> None:
        if not self._filling:
            self.stack.selected_index = self.slider.index if self.stack.children else None

    def _page(self, step: int, path: Path) -> ipywidgets.HTML:
        pictures = read_strip(path)
        texts = [f"step {step}: {prompt}" for prompt in self._prompts[: len(pictures)]]
        return ipywidgets.HTML(picture_row(f"Drawn at step {step}", pictures, texts))


# Curves as SVG: they take the colours of the page, light or dark.
_INK = "#808080"  # stands in the drawing where the page's own colour belongs
_NAMED = 6  # lines that are told apart by colour and named
_COLOURS = ("#2f7ed8", "#d9730d", "#1a9e6e", "#c264a8", "#b8860b", "#3aa0c8")  # legible on light and dark
_STYLE = "color:var(--jp-ui-font-color1, currentColor);max-width:100%;height:auto"
Series = tuple[Sequence[int], Sequence[float]]


def curves(title: str, given: dict[str, Series]) -> str:
    """Quantities over the steps, as a drawing that says in words what it shows; empty where there are none.

    Args:
        given: steps and values, by the name of the line; of one alone the name is empty.
    """
    finite = {
        name: [point for point in zip(*one, strict=True) if math.isfinite(point[1])]
        for name, one in given.items()
    }
    found = {name: points for name, points in finite.items() if points}
    if not found:
        return ""
    alt = html.escape(" ".join(_in_words(f"{title} {name}".strip(), one) for name, one in found.items()))
    drawn = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    _drawn(title, found).savefig(drawn, format="svg", transparent=True, metadata=nothing)
    _, _, svg = drawn.getvalue().replace(_INK, "currentColor").partition("<svg")
    svg = re.sub("<style.*?</style>", "", svg)  # else it is one for the whole page
    return f'<svg role="img" aria-label="{alt}" style="{_STYLE}"{svg}'


def _drawn(title: str, found: dict[str, list[tuple[int, float]]]) -> Figure:
    named = [name for name in found if name][:_NAMED]
    beside = 0.22 * len(named)  # inches, for the names below
    figure = Figure(figsize=(4.2, 1.8 + beside))
    axes = figure.add_axes((0.16, (0.45 + beside) / (1.8 + beside), 0.8, 1.1 / (1.8 + beside)))
    for number, (name, points) in enumerate(found.items()):
        colour, shown = _COLOURS[number % len(_COLOURS)], f"{name}  {points[-1][1]:.4f}"
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=shown)
        axes.plot(*points[-1], "o", color=colour, markersize=4)
        if name in named:
            place = (0, -0.42 - 0.2 * number)
            axes.annotate(shown, place, xycoords="axes fraction", color=colour, fontsize=9, parse_math=False)
    axes.set_title(title if named else title + shown, color=_INK, fontsize=10, loc="left")
    axes.set_xlabel("step", color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.locator_params(nbins=4)
    axes.spines[:].set_color(_INK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _in_words(title: str, points: list[tuple[int, float]]) -> str:
    (first, at_first), (last, at_last) = points[0], points[-1]
    values = [value for _, value in points]
    return (
        f"{title} over the steps: {at_first:.4f} at step {first}, {at_last:.4f} at step {last}; "
        f"lowest {min(values):.4f}, highest {max(values):.4f}."
    )
