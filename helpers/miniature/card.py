"""The model card: what the miniature was trained on, how long, and how good it is."""

import json
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from ..grid import image_grid
from .by_eye import agreement_with_eye, has_labels
from .drawing import render
from .judge import Judge
from .pictures import CAPTIONS, NAMED_SHARE
from .report import REPORTED, Asked, measure
from .world import HELD_OUT, HELD_OUT_STYLE, HELD_OUT_TOYS, PLACES, Drawing, named_toys

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
