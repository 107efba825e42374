"""Pictures of a run, made from its training folder alone."""

import io

from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ..concept import Concept
from ..grid import GAP, image_grid
from .log import read_log, series
from .outcome import Outcome
from .samples import saved_samples


def plot_run(concept: Concept) -> Image.Image:
    """The fixed loss, the score and the row's norm over the steps; a line marks the step that was kept.

    Raises:
        UserError: the concept was never trained to an end.
    """
    best, lines = Outcome.load(concept).best_step, read_log(concept.training_folder)
    figure = Figure(figsize=(11, 3), layout="constrained")
    panels = {"fixed_loss": "fixed loss", "score": "score on what was kept back", "norm": "length of the row"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        steps, values = series(lines, name)
        axes.plot(steps, values, marker="." if len(steps) < 60 else "")
        axes.axvline(best, color="tab:green", linestyle=":")
        axes.set(title=title, xlabel="step")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    return Image.open(drawn)


def sample_sheet(concept: Concept, cell: int = 96) -> Image.Image:
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
    return image_grid(pictures, columns=len(lefts), captions=captions, cell=cell)


def _note(text: str) -> Image.Image:
    note = Image.new("RGB", (560, 40), "white")
    ImageDraw.Draw(note).text((8, 10), text, fill="#333333", font=ImageFont.load_default(size=14))
    return note
