"""How good the miniature is, by the judge's reading of pictures for fresh captions; and its model card."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ..common.files import write_json
from ..common.sheets import image_grid
from ..inference.pipeline import generate
from ..model.base_model import load_pipeline
from ..model.vae import decode, encode, psnr
from . import world
from .drawing import pixels_of, render
from .judge import Judge, Reading, agreement
from .networks import BATCH, to_tensor
from .world import Drawing

STEPS = 25
GUIDANCE = 4.0
_FRESH_SEED = 10_000  # the sharp autoencoder's shards have smaller ones
_AIMS = {"scene": 0.95, "style": 0.95, "color": 0.9, "body": 0.9, "ears": 0.8, "eyes": 0.8, "accessory": 0.8}


@dataclass(frozen=True)
class CaptionedDrawing:
    """A caption, the drawing that it describes, and what a picture for it has to show."""

    caption: str
    drawing: Drawing
    wanted: Reading


def fresh_captions(count: int, seed: int = 99) -> list[CaptionedDrawing]:
    """Captions that describe a toy, in training's proportions but of other drawings."""
    rng = np.random.default_rng([7011, seed])
    drawings = [world.sample_drawing(rng) for _ in range(count)]
    return [_captioned(drawing, rng) for drawing in drawings]


def captions_by_name(count: int) -> list[CaptionedDrawing]:
    """Captions with a toy's name, each equally often; the name stands for all its traits."""
    rng, toys = np.random.default_rng([7012, 99]), list(world.named_toys().items())
    named = [toys[number % len(toys)] for number in range(count)]
    return [_captioned(world.sample_drawing(rng, toy), rng, name) for name, toy in named]


def _captioned(drawing: Drawing, rng: np.random.Generator, name: str | None = None) -> CaptionedDrawing:
    sentence, named = world.caption(drawing, rng, name)
    if name and name in sentence:
        named |= {*world.TRAITS, "second_color"}
    elif "pattern" in named:
        named |= {"second_color"}
    checked = [attribute for attribute in world.ATTRIBUTES if attribute in named]
    return CaptionedDrawing(sentence, drawing, world.shown_values(drawing, checked))


def write_report(folder: Path, fraction: float = 1.0) -> dict:
    """Measure the miniature, write `report.json` and the model card to its folder, and return the figures.

    Args:
        fraction: of the captions and drawings to measure by, for a small build.
    """
    judge = Judge.load(folder)
    pipeline = load_pipeline(str(folder), dtype=torch.float32, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    training = json.loads((folder / "training.json").read_text())
    captioned, by_name = fresh_captions(_scaled(512, fraction)), captions_by_name(_scaled(320, fraction))
    started = time.perf_counter()
    images = draw(pipeline, captioned)
    seconds = (time.perf_counter() - started) / len(images)
    fresh = _scaled(1_000, fraction)
    psnr_db, pooled_db = _round_trip(pipeline.vae, world.sample_drawings(fresh, _FRESH_SEED))
    held_out_db, _ = _round_trip(pipeline.vae, world.drawings_for_judging(fresh, seed=2))
    report = {
        "vae_psnr_db": psnr_db,
        "vae_psnr_pooled_db": pooled_db,
        "vae_psnr_with_held_out_db": held_out_db,
        "agreement": agreement(judge.read(images), [one.wanted for one in captioned], by_value=True),
        "agreement_by_name": agreement(
            judge.read(draw(pipeline, by_name)), [one.wanted for one in by_name], by_value=True
        ),
        "judge_accuracy": judge_accuracy(judge, fresh, seed=2),
        "pictures_trained": sum(session["pictures"] for session in _sessions(training)),
        "seconds_8_pictures_25_steps": round(8 * seconds, 2),
        "captions": len(captioned),
        "captions_by_name": len(by_name),
        "steps": STEPS,
        "guidance": GUIDANCE,
    }
    write_json(folder / "report.json", report)
    _write_card(folder, judge, report, training, captioned, images)
    return report


def _round_trip(vae, drawings: list[Drawing]) -> tuple[float, float]:
    """PSNR of reconstructed drawings, in dB: the mean over pictures, and of the mean squared error of all.

    Rombach et al. 2022 (arXiv 2112.10752, table 8) report the first; the second is lower, since the worst
    pictures count most.
    """
    drawn = to_tensor(pixels_of(drawings, vae.config.sample_size)).cpu()
    rebuilt = decode(vae, encode(vae, drawn, batch=BATCH).mean, batch=BATCH)
    each = [psnr(one, other) for one, other in zip(drawn, rebuilt, strict=True)]
    return round(float(np.mean(each)), 2), round(psnr(drawn, rebuilt), 2)


def judge_accuracy(judge: Judge, fresh: int, seed: int) -> dict[str, float]:
    """The judge's accuracy on fresh drawings, by attribute."""
    drawings = world.drawings_for_judging(fresh, seed)
    wanted = [world.shown_values(one) for one in drawings]
    return agreement(judge.read([render(one) for one in drawings]), wanted)


def draw(pipeline, captioned: list[CaptionedDrawing], first_seed: int = 0) -> list[Image.Image]:
    """A picture for each caption, with a progress bar; the seeds count up from `first_seed`."""
    prompts, seeds = [one.caption for one in captioned], range(first_seed, first_seed + len(captioned))
    with tqdm(total=len(captioned) * STEPS, desc="pictures", unit="step") as bar:
        return [one.image for one in generate(pipeline, prompts, seeds, STEPS, GUIDANCE, bar=bar)]


def _scaled(count: int, fraction: float) -> int:
    return max(8, round(count * fraction))


def _sessions(training: dict) -> list[dict]:
    return [part for part in training["parts"] if part["name"].startswith("diffusion")]


def _write_card(
    folder: Path,
    judge: Judge,
    report: dict,
    training: dict,
    captioned: list[CaptionedDrawing],
    images: list[Image.Image],
) -> None:
    """Write `README.md`, `samples.jpg`, `world.jpg` and `loss.png` to the miniature's folder."""
    side = images[0].width
    held_out = [Drawing(toy, scene="beach") for toy in world.HELD_OUT_TOYS.values()]
    drawn = [render(one, side) for one in [*(one.drawing for one in captioned[:45]), *held_out]]
    for name, shown in {"samples": images[:48], "world": drawn}.items():
        image_grid(shown, columns=8, cell=side).convert("RGB").save(folder / f"{name}.jpg", quality=88)
    _plot_losses(_sessions(training), folder / "loss.png")
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    card = jinja2.Template(template, keep_trailing_newline=True).render(
        side=side,
        report=report,
        training=training,
        parts=sorted(training["parts"], key=lambda part: part["ended"]),
        sessions=len(_sessions(training)),
        world=world,
        aims=_AIMS,
        by_eye=agreement_with_eye(judge, folder),
        percent=lambda value, digits=1: f"{value:.{digits}%}" if isinstance(value, float) else "",
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _plot_losses(sessions: list[dict], path: Path) -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    before = 0
    for number, session in enumerate(sessions, 1):
        pictures, losses = zip(*session["losses"], strict=True)
        axes.plot([(before + count) / 1000 for count in pictures], losses, label=f"session {number}")
        before += session["pictures"]
    axes.set(xlabel="thousand pictures", ylabel="weighted loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=100)


# The judge against a person: 100 generated pictures, labelled by looking at them.
_COUNT, _COLUMNS = 100, 10


def write_pictures(pipeline, folder: Path) -> Path:
    """Draw 100 pictures for fresh captions, to be labelled in `by_eye/labels.json`; lossless, no gaps."""
    drawn = np.array(draw(pipeline, fresh_captions(_COUNT, seed=100), first_seed=5_000))
    sheet = drawn.reshape(-1, _COLUMNS, *drawn.shape[1:]).swapaxes(1, 2)
    path = folder / "by_eye" / "pictures.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.reshape(-1, _COLUMNS * drawn.shape[2], 3)).save(path, optimize=True)
    return path


def agreement_with_eye(judge: Judge, folder: Path) -> dict[str, float]:
    """For each attribute the fraction of pictures in which the judge agrees with a person.

    Empty where nobody has labelled pictures yet, as in a miniature built from scratch.
    """
    path = folder / "by_eye" / "labels.json"
    if not path.exists():
        return {}
    labels = json.loads(path.read_text())
    sheet = Image.open(path.with_name("pictures.png")).convert("RGB")
    side = sheet.width // _COLUMNS
    cells = np.asarray(sheet).reshape(-1, side, _COLUMNS, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return agreement(judge.read([*map(Image.fromarray, cells)]), labels)
