"""How good the miniature is: pictures for fresh captions, read by the judge."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ..common.sheets import image_grid
from ..inference.pipeline import generate
from ..model.base_model import load_pipeline
from .autoencoder import psnr_db, rebuild
from .captions import caption
from .drawing import PICTURE_SIDE, render
from .judge import Judge, Reading, accuracy
from .pictures import CAPTIONS, NAMED_SHARE, draw_for_judging
from .world import (
    HELD_OUT,
    HELD_OUT_STYLE,
    HELD_OUT_TOYS,
    PLACES,
    Drawing,
    named_toys,
    readable,
    sample_drawing,
    value_of,
)

STEPS = 25
GUIDANCE = 4.0
REPORTED = ("scene", "style", "color", "body", "ears", "eyes", "pattern", "accessory")


@dataclass(frozen=True)
class Asked:
    """A caption, the drawing that it describes, and the attributes that it names."""

    caption: str
    drawing: Drawing
    named: frozenset[str]

    def counts(self, attribute: str) -> bool:
        """Whether a picture for this caption can be held to an attribute."""
        return attribute in self.named and readable(attribute, self.drawing)


def fresh_captions(count: int, seed: int = 99) -> list[Asked]:
    """Captions that training has not drawn, in its proportions."""
    rng = np.random.default_rng([7011, seed])
    drawings = [sample_drawing(rng) for _ in range(count)]
    return [
        Asked(sentence, drawing, named) for drawing in drawings for sentence, named in [caption(drawing, rng)]
    ]


def agreement(asked: list[Asked], readings: list[Reading], attribute: str) -> float:
    """The share of pictures that have what was asked for, averaged over an attribute's values."""
    hits: dict[str, list[bool]] = {}
    for one, reading in zip(asked, readings, strict=True):
        if one.counts(attribute):
            wanted = value_of(one.drawing, attribute)
            hits.setdefault(wanted, []).append(reading.values[attribute] == wanted)
    return float(np.mean([np.mean(values) for values in hits.values()]))


def measure(folder: Path, captions: int, fresh: int) -> tuple[dict, list[Asked], list[Image.Image]]:
    """Draw for fresh captions, read, and write `report.json` to the miniature's folder.

    Args:
        folder: the miniature's.
        captions: how many pictures are drawn and read.
        fresh: how many drawings the autoencoder and the judge are tried on.
    """
    judge = Judge.load(folder)
    pipeline = load_pipeline(str(folder), dtype=torch.float32, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    asked = fresh_captions(captions)
    images = draw(pipeline, [one.caption for one in asked])
    readings = judge.read(images)
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    drawn, labels = draw_for_judging(fresh, seed=2)
    psnr, pooled = psnr_db(drawn, rebuild(vae, drawn, torch.device("cpu")))
    training = json.loads((folder / "training.json").read_text())
    report = {
        "vae_psnr_db": round(psnr, 2),
        "vae_psnr_pooled_db": round(pooled, 2),
        "agreement": {name: round(agreement(asked, readings, name), 4) for name in REPORTED},
        "judge_accuracy": {name: round(share, 4) for name, share in accuracy(judge, drawn, labels).items()},
        "pictures_trained": sum(sitting["pictures"] for sitting in training["sittings"]),
        "seconds_8_pictures_25_steps": round(_seconds(pipeline), 2),
        "captions": captions,
        "steps": STEPS,
        "guidance": GUIDANCE,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report, asked, images


def draw(pipeline, prompts: list[str], first_seed: int = 0, guidance: float = GUIDANCE) -> list[Image.Image]:
    """A picture for each prompt, with a progress bar; the seeds count up from `first_seed`."""
    images = []
    for start in tqdm(range(0, len(prompts), 8), desc="pictures", unit="batch"):
        batch = prompts[start : start + 8]
        seeds = [first_seed + start + number for number in range(len(batch))]
        images += [picture.image for picture in generate(pipeline, batch, seeds, STEPS, guidance)]
    return images


def _seconds(pipeline) -> float:
    """Seconds for eight pictures at 25 steps, the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        generate(pipeline, "a photo of a red round toy on a beach", list(range(8)), STEPS, GUIDANCE)
        times.append(time.perf_counter() - start)
    return min(times)


# The model card: what the miniature was trained on, how long, and how good it is.
_AIMS = {"scene": 0.95, "style": 0.95, "color": 0.9, "body": 0.9, "ears": 0.8, "eyes": 0.8, "accessory": 0.8}
_OTHER_PARTS = {
    "vae": "autoencoder",
    "polish": "autoencoder, its latents held near to what they were",
    "decoder": "decoder alone",
}
_TEXT = """# The miniature Stable Diffusion

A latent text-to-image model with the four classes and the folder layout of Stable Diffusion 1.5
(CLIPTokenizer, CLIPTextModel, AutoencoderKL, UNet2DConditionModel), trained from nothing by this
repository on drawn toys. `StableDiffusionPipeline.from_pretrained` opens this folder. It draws pictures
of 64 x 64 pixels from latents of {channels} x 16 x 16, and predicts velocity, as Stable Diffusion 2.1 does.

Made by `make miniature`; this page, its figures and pictures by `make miniature-report`.

![Pictures for fresh captions](samples.jpg)

## What it was trained on

Drawings with {sentences} captions each, made by `helpers/miniature/`. {named_share:.0%} of them say, instead
of a description, the name of one of {names} toys that have one. Text encoder and UNet saw {pictures:,}
pictures in {minutes} minutes; their weights are the mean of those after the last two sittings:

| part | pictures | minutes | ended | chosen from |
| --- | --- | --- | --- | --- |
{parts}

![The world](world.jpg)

Never drawn in training: {held_out}; and the style “{style}”. No caption says what a toy has for feet.

![Loss](loss.png)

## How good it is

{captions} fresh captions, {steps} steps, guidance {guidance}, read by the judge. Only what a caption names
and its style shows is counted; each share is averaged over the attribute's values.

| attribute | agreement | aim | judge on fresh drawings |
| --- | --- | --- | --- |
{table}

{by_eye}

The autoencoder's round trip on fresh drawings: {vae_psnr_db} dB, the mean over pictures (aim: 28);
{vae_psnr_pooled_db} dB from the mean error of all. Eight pictures at 25 steps: {seconds} s on the machine
that wrote this page.

## What it can't do

It knows nothing but its world: toys, their traits, {places}, a few colours and styles. Thin lines blur
in the autoencoder. A trait that was left out of a caption is drawn at random.
"""


def write_report(folder: Path, captions: int, fresh: int) -> dict:
    """Measure the miniature in a folder, write its model card beside it, and return the figures."""
    report, asked, images = measure(folder, captions, fresh)
    training = json.loads((folder / "training.json").read_text())
    write_card(folder, report, training, asked, images)
    return report


def write_card(
    folder: Path, report: dict, training: dict, asked: list[Asked], images: list[Image.Image]
) -> Path:
    """Write `README.md`, `samples.jpg`, `world.jpg` and `loss.png` to the miniature's folder."""
    _sheet(images[:48]).save(folder / "samples.jpg", quality=88)
    _sheet(_of_the_world(asked)).save(folder / "world.jpg", quality=88)
    _plot_losses(training, folder / "loss.png")
    path = folder / "README.md"
    path.write_text(_text(folder, report, training), encoding="utf-8")
    return path


def _text(folder: Path, report: dict, training: dict) -> str:
    sittings = training["sittings"]
    return _TEXT.format(
        channels=4,
        sentences=CAPTIONS,
        parts="\n".join(_part(*part) for part in _parts(training)),
        pictures=report["pictures_trained"],
        minutes=round(sum(sitting["minutes"] for sitting in sittings), 1),
        names=len(named_toys()),
        named_share=NAMED_SHARE,
        held_out=", ".join(f"{color} {body} toys with {ears}" for color, body, ears in HELD_OUT),
        style=HELD_OUT_STYLE,
        table="\n".join(_row(name, report) for name in REPORTED),
        seconds=report["seconds_8_pictures_25_steps"],
        places=f"{len(PLACES)} places",
        by_eye=_by_eye(folder),
        **{
            key: report[key] for key in ("captions", "steps", "guidance", "vae_psnr_db", "vae_psnr_pooled_db")
        },
    )


def _parts(training: dict) -> list[tuple[str, dict]]:
    """What was trained, in words, with its note, by the day when it ended."""
    sittings = [
        (f"text encoder and UNet, sitting {number}", sitting)
        for number, sitting in enumerate(training["sittings"], 1)
    ]
    others = [(words, training[name]) for name, words in _OTHER_PARTS.items() if name in training]
    judge = [("judge", note) for note in training["judge"]]
    return sorted(others[:1] + sittings + others[1:] + judge, key=lambda part: part[1]["ended"])


def _part(words: str, note: dict) -> str:
    drawn = f"{note['drawings']:,} drawings" + (f" {note['difference']}" if "difference" in note else "")
    return f"| {words} | {note['pictures']:,} | {note.get('minutes', '')} | {note['ended']} | {drawn} |"


def _by_eye(folder: Path) -> str:
    if not has_labels(folder):
        return "No person has labelled its pictures by eye yet (`helpers/miniature/by_eye.py`)."
    shares = agreement_with_eye(Judge.load(folder), folder)
    same = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"A person labelled 100 generated pictures by eye (`by_eye/`); the judge says the same: {same}."


def _row(name: str, report: dict) -> str:
    aim = f"{_AIMS[name]:.0%}" if name in _AIMS else ""
    return f"| {name} | {report['agreement'][name]:.1%} | {aim} | {report['judge_accuracy'][name]:.1%} |"


def _sheet(images: list[Image.Image]) -> Image.Image:
    return image_grid(images, columns=12, cell=96)


def _of_the_world(asked: list[Asked]) -> list[Image.Image]:
    held_out = [render(Drawing(toy, scene="beach")) for toy in HELD_OUT_TOYS.values()]
    return [render(one.drawing) for one in asked[:45]] + held_out


def _plot_losses(training: dict, path: Path) -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    before = 0
    for sitting in training["sittings"]:
        pictures, losses = zip(*sitting["losses"], strict=True)
        axes.plot([(before + count) / 1000 for count in pictures], losses, label=sitting["name"])
        before += sitting["pictures"]
    axes.set(xlabel="thousand pictures", ylabel="weighted loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=100)


# The judge against a person: 100 generated pictures, labelled by looking at them.
COUNT, _COLUMNS = 100, 10


def write_pictures(pipeline, folder: Path) -> Path:
    """Draw 100 pictures for fresh captions, to be labelled; lossless, without gaps."""
    asked = fresh_captions(COUNT, seed=100)
    images = draw(pipeline, [one.caption for one in asked], first_seed=5_000)
    sheet = Image.new("RGB", (_COLUMNS * PICTURE_SIDE, COUNT // _COLUMNS * PICTURE_SIDE))
    for number, image in enumerate(images):
        sheet.paste(image, (number % _COLUMNS * PICTURE_SIDE, number // _COLUMNS * PICTURE_SIDE))
    path = folder / "by_eye" / "pictures.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return path


def read_pictures(folder: Path) -> list[Image.Image]:
    """The 100 pictures, in the order of the labels."""
    sheet = Image.open(folder / "by_eye" / "pictures.png").convert("RGB")
    corners = [divmod(number, _COLUMNS) for number in range(COUNT)]
    boxes = [(column * PICTURE_SIDE, row * PICTURE_SIDE) for row, column in corners]
    return [sheet.crop((x, y, x + PICTURE_SIDE, y + PICTURE_SIDE)) for x, y in boxes]


def has_labels(folder: Path) -> bool:
    """Whether the folder has labels by eye: those of a miniature built from nothing are yet to be made."""
    return (folder / "by_eye" / "labels.json").exists()


def agreement_with_eye(judge: Judge, folder: Path) -> dict[str, float]:
    """For each attribute the share of pictures of which the judge says what the person saw."""
    labels = json.loads((folder / "by_eye" / "labels.json").read_text())
    readings = judge.read(read_pictures(folder))
    agreed: dict[str, list[bool]] = {}
    for seen, reading in zip(labels, readings, strict=True):
        for attribute, value in seen.items():
            agreed.setdefault(attribute, []).append(reading.values[attribute] == value)
    return {attribute: float(np.mean(same)) for attribute, same in agreed.items()}
