"""The model card: what the miniature was trained on, how long, and how good it is."""

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from ..grid import image_grid
from .by_eye import agreement_with_eye
from .drawing import render
from .judge import Judge
from .pictures import NAMED_SHARE
from .report import REPORTED, Asked
from .world import HELD_OUT, HELD_OUT_STYLE, HELD_OUT_TOYS, PLACES, Drawing, named_toys

_AIMS = {"scene": 0.95, "style": 0.95, "color": 0.9, "body": 0.9, "ears": 0.8, "eyes": 0.8, "accessory": 0.8}

_TEXT = """# The miniature Stable Diffusion

A latent text-to-image model with the four classes and the folder layout of Stable Diffusion 1.5
(CLIPTokenizer, CLIPTextModel, AutoencoderKL, UNet2DConditionModel), trained from nothing by this
repository on drawn toys. `StableDiffusionPipeline.from_pretrained` opens this folder. It draws pictures
of 64 x 64 pixels from latents of {channels} x 16 x 16, and predicts velocity, as Stable Diffusion 2.1 does.

Made by `make miniature`; this page, its figures and pictures by `make miniature-report`.

![Pictures for fresh captions](samples.jpg)

## What it was trained on

{drawings:,} drawings with three captions each, made by `helpers/miniature/`. Autoencoder: {vae_pictures:,}
pictures in {vae_minutes} minutes. Text encoder and UNet: {pictures:,} pictures in {minutes} minutes, in
{sittings} sitting(s). Then the autoencoder was polished, its latents held near to what they were:
{polish_pictures:,} pictures in {polish_minutes} minutes. {named_share:.0%} of the captions say, instead of a
description, the name of one of {names} toys that have one.{remark}

![The world](world.jpg)

Never drawn in training: {held_out}; and the style “{style}”. No caption says what a toy has for feet.

![Loss](loss.png)

## How good it is

{captions} fresh captions, {steps} steps, guidance {guidance}, read by the judge. Only what a caption names
and its style shows is counted; each share is averaged over the attribute's values.

| attribute | agreement | aim | judge on fresh drawings |
| --- | --- | --- | --- |
{table}

A person labelled 100 generated pictures by eye (`by_eye/`); the judge says the same: {by_eye}.

The autoencoder's round trip on fresh drawings: {vae_psnr_db} dB, the mean over pictures (aim: 28);
{vae_psnr_pooled_db} dB from the mean error of all. Eight pictures at 25 steps: {seconds} s on the machine
that wrote this page.

## What it can't do

It knows nothing but its world: toys, their traits, {places}, a few colours and styles. Thin lines blur
in the autoencoder. A trait that was left out of a caption is drawn at random.
"""


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
        drawings=training["drawings"],
        vae_pictures=training["vae"]["pictures"],
        vae_minutes=training["vae"]["minutes"],
        polish_pictures=training["polish"]["pictures"],
        polish_minutes=training["polish"]["minutes"],
        pictures=report["pictures_trained"],
        minutes=round(sum(sitting["minutes"] for sitting in sittings), 1),
        sittings=len(sittings),
        names=len(named_toys()),
        named_share=NAMED_SHARE,
        remark=" " + training["remark"] if "remark" in training else "",
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


def _by_eye(folder: Path) -> str:
    shares = agreement_with_eye(Judge.load(folder), folder)
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


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
