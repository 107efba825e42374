"""Pictures of a run, made from its training folder alone."""

from PIL import Image, ImageDraw, ImageFont

from ..concept import Concept
from ..described import Described, described
from ..figure import finish, new_figure
from ..grid import GAP, image_grid
from .log import read_log, row_norms, series
from .outcome import Outcome
from .samples import saved_samples


def plot_run(concept: Concept) -> Described:
    """The fixed loss, the score and each row's norm over the steps; a line marks the step that was kept.

    Raises:
        UserError: the concept was never trained to an end.
    """
    best, lines = Outcome.load(concept).best_step, read_log(concept.training_folder)
    panels = {
        "fixed loss": {"": series(lines, "fixed_loss")},
        "score on what was kept back": {"": series(lines, "score")},
        "length of each row": row_norms(concept, lines) or {"": series(lines, "norm")},
    }
    axes = new_figure(columns=3, size=(11, 3))
    for one, (title, drawn) in zip(axes, panels.items(), strict=True):
        for name, (steps, values) in drawn.items():
            one.plot(steps, values, label=name, marker="." if len(steps) < 60 else "")
        one.axvline(best, color="0.4", linestyle=":")
        one.set(title=title, xlabel="step")
    if 1 < len(panels["length of each row"]) <= 6:
        axes[-1].legend()
    return finish(axes[0], _in_words(panels, best))


def sample_sheet(concept: Concept, cell: int = 96) -> Described:
    """The strips drawn during training, one below the other, oldest first; a note where none was drawn."""
    samples = saved_samples(concept)
    if not samples:
        return _note("No samples were drawn: set sample_every to 100 or so, and train again.")
    pictures, captions = [], []
    for step, path in samples.items():
        strip = Image.open(path)
        lefts = range(0, strip.width, strip.height + GAP)
        pictures += [strip.crop((left, 0, left + strip.height, strip.height)) for left in lefts]
        captions += [f"step {step}"] * len(lefts)
    alt = f"{len(lefts)} samples at each of these steps: {', '.join(map(str, samples))}."
    return image_grid(pictures, columns=len(lefts), captions=captions, cell=cell, alt=alt)


def _in_words(panels: dict[str, dict[str, tuple]], best: int) -> str:
    ends = [
        f"{title} {name}".strip() + f" from {values[0]:.4f} at step {steps[0]} to {values[-1]:.4f}"
        for title, drawn in panels.items()
        for name, (steps, values) in drawn.items()
        if steps
    ]
    return f"Curves over the steps: {'; '.join(ends)}. The step that was kept: {best}."


def _note(text: str) -> Described:
    note = Image.new("RGB", (560, 40), "white")
    ImageDraw.Draw(note).text((8, 10), text, fill="#333333", font=ImageFont.load_default(size=14))
    return described(note, text)
