"""How good the miniature is: pictures for fresh captions, read by the judge."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from tqdm.auto import tqdm

from ..base_model import load_pipeline
from ..inference import generate
from .autoencoder import psnr_db, rebuild
from .captions import caption
from .judge import Judge, Reading, accuracy
from .labels import value_of
from .pictures import draw_for_judging
from .world import Drawing, readable, sample_drawing

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
