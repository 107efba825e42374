"""Pictures of a run, made from its training folder alone."""

from matplotlib.figure import Figure
from PIL import Image

from ..concept import Concept
from ..errors import UserError
from ..grid import image_grid
from .log import read_log, series
from .outcome import Outcome
from .samples import saved_samples


def plot_run(concept: Concept) -> Figure:
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
    return figure


def sample_sheet(concept: Concept, cell: int = 96) -> Image.Image:
    """The strips drawn during training, one below the other, oldest first.

    Raises:
        UserError: none was drawn.
    """
    samples = saved_samples(concept)
    if not samples:
        raise UserError("No samples were drawn: set sample_every to 100 or so, and train again.")
    pictures, captions = [], []
    for step, path in samples.items():
        strip = Image.open(path)
        side = strip.height
        count = round(strip.width / side)
        pictures += [strip.crop((n * strip.width // count, 0, n * strip.width // count + side, side)) for n in range(count)]
        captions += [f"step {step}"] * count
    return image_grid(pictures, columns=count, captions=captions, cell=cell)
