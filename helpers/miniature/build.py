"""From nothing to `data/miniature/`: each stage is skipped where its result lies in `build/miniature/`."""

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..places import data_folder, miniature_folder, repository_folder
from .autoencoder import polish_autoencoder, rebuild, train_autoencoder, train_decoder_on
from .diffusion import encode_shards, new_scheduler, train_diffusion
from .grooty import write_examples
from .judge import train_judge
from .machine import autocast, device
from .pictures import SHARD, draw_for_judging, load_labels, load_pixels, make_shards
from .sitting import Plan
from .tokenizer import build_tokenizer

SHARDS = 25
_JUDGED_DRAWINGS = 10_000
_ROUND_TRIPS = 10_000
SITTINGS = (
    Plan("diffusion-1", pictures=128_000, batch=64, lr=3e-3, cooldown=0.5),
    Plan("diffusion-2", pictures=340_000, batch=128, lr=2e-3, cooldown=0.7),
)


def work_folder() -> Path:
    """Where the recipe keeps drawings, latents and checkpoints; git does not."""
    return repository_folder() / "build" / "miniature"


def build() -> Path:
    """Make the whole of the miniature, or what a killed run left to be made; return its folder."""
    work = work_folder()
    shards, tokenizer = _draw(work)
    vae = _autoencoder(work, shards)
    model = None
    for plan in SITTINGS:
        model = _sitting(work, shards, tokenizer, vae, plan, start=model)
    vae = _polished(work, shards, vae)
    judge = _judge(work, shards, vae)
    write_examples(data_folder() / "grooty")
    folder = assemble(tokenizer, vae, model)
    judge.save(folder)
    parts = {name: note(work, name) for name in ("vae", "polish")}
    sittings = [note(work, plan.name) for plan in SITTINGS]
    return _write_notes(folder, {"drawings": SHARDS * SHARD, **parts, "sittings": sittings})


def sit_again(pictures: int) -> Path:
    """Train the shipped weights on: same autoencoder and tokenizer, the optimizer anew at a lower rate."""
    shipped, work = miniature_folder(), work_folder()
    tokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    notes = json.loads((shipped / "training.json").read_text())
    if not (work / "tokenizer").exists():
        shutil.copytree(shipped / "tokenizer", work / "tokenizer")
    vae = AutoencoderKL.from_pretrained(shipped / "vae").eval()
    shards = make_shards(SHARDS, work / "pictures", work / "tokenizer")
    plan = Plan(f"diffusion-{len(notes['sittings']) + 1}", pictures, batch=128, lr=2e-3, cooldown=0.7)
    model = _sitting(work, shards, tokenizer, vae, plan, start=_shipped_model(shipped))
    folder = assemble(tokenizer, vae, model)
    sittings = [*notes["sittings"], note(work, plan.name)]
    return _write_notes(folder, {**notes, "drawings": SHARDS * SHARD, "sittings": sittings})


def polish_again(pictures: int) -> Path:
    """Train the shipped autoencoder's decoder on, for drawings that have changed; the UNet fits as before."""
    shipped, work = miniature_folder(), work_folder()
    shards = make_shards(SHARDS, work / "pictures", shipped / "tokenizer")
    notes = json.loads((shipped / "training.json").read_text())
    plan = Plan("decoder", pictures, batch=8, lr=2e-3, cooldown=0.9)
    vae = AutoencoderKL.from_pretrained(shipped / "vae", torch_dtype=torch.float32)
    vae = train_decoder_on(vae, load_pixels(shards[:-1]), work, device(), plan).cpu()
    folder = assemble(CLIPTokenizer.from_pretrained(shipped / "tokenizer"), vae, _shipped_model(shipped))
    return _write_notes(folder, {**notes, "decoder": note(work, plan.name)})


def assemble(tokenizer: CLIPTokenizer, vae: AutoencoderKL, model: nn.ModuleDict) -> Path:
    """Write the four parts and the scheduler in the layout of Stable Diffusion 1.5, in half precision."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        tokenizer=tokenizer,
        vae=vae,
        text_encoder=model["text_encoder"],
        unet=model["unet"],
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to("cpu", torch.float16).save_pretrained(miniature_folder())
    for config in miniature_folder().glob("*/config.json"):
        _forget_origin(config)
    return miniature_folder()


def _forget_origin(config: Path) -> None:
    """diffusers notes the folder that a part was loaded from, on this machine."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _draw(work: Path) -> tuple[list[Path], CLIPTokenizer]:
    folder = work / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder) if folder.exists() else build_tokenizer(folder)
    return make_shards(SHARDS, work / "pictures", folder), tokenizer


def _autoencoder(work: Path, shards: list[Path]) -> AutoencoderKL:
    if (work / "vae").exists():
        return AutoencoderKL.from_pretrained(work / "vae").eval()
    vae = train_autoencoder(load_pixels(shards[:-1]), work, device())
    return _kept(vae, work / "vae")


def _polished(work: Path, shards: list[Path], vae: AutoencoderKL) -> AutoencoderKL:
    if (work / "vae-polished").exists():
        return AutoencoderKL.from_pretrained(work / "vae-polished").eval()
    return _kept(polish_autoencoder(vae, load_pixels(shards[:-1]), work, device()), work / "vae-polished")


def _kept(vae: AutoencoderKL, folder: Path) -> AutoencoderKL:
    """Save in one go, so that a folder that is there is whole."""
    vae.cpu().save_pretrained(folder.with_suffix(".partial"))
    folder.with_suffix(".partial").rename(folder)
    return vae


def _sitting(work, shards, tokenizer, vae, plan: Plan, start: nn.ModuleDict | None) -> nn.ModuleDict:
    on = device()
    latents = encode_shards(shards, vae.to(on, memory_format=torch.channels_last), on)
    return train_diffusion(latents, tokenizer, vae.config.scaling_factor, start, plan, work, on).cpu()


def _judge(work: Path, shards: list[Path], vae: AutoencoderKL):
    """Trained on all drawings, and on the round trips of some of them."""
    pixels, labels = draw_for_judging(_JUDGED_DRAWINGS, seed=1)
    drawn = np.concatenate([pixels, load_pixels(shards)])
    labels = np.concatenate([labels, load_labels(shards)])
    vae.to(device(), memory_format=torch.channels_last)
    with autocast(device()):
        rebuilt = rebuild(vae, drawn[:_ROUND_TRIPS], device())
    return train_judge([(drawn, labels), (rebuilt, labels)], work)


def _shipped_model(folder: Path) -> nn.ModuleDict:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    return nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})


def _write_notes(folder: Path, notes: dict) -> Path:
    """Keep what the model card tells: of each part its pictures, minutes and losses."""
    (folder / "training.json").write_text(json.dumps(notes, indent=1) + "\n")
    return folder


def note(work: Path, name: str) -> dict:
    """A part's log, thinned to a hundred lines."""
    lines = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
    thin = lines[:: max(1, len(lines) // 100)]
    return {
        "name": name,
        "pictures": lines[-1]["pictures"],
        "minutes": round(_minutes(lines), 1),
        "losses": [[line["pictures"], line["loss"]] for line in thin],
        "ended": time.strftime("%Y-%m-%d", time.gmtime(lines[-1]["time"])),
    }


def _minutes(lines: list[dict]) -> float:
    """Time spent, without the breaks between a kill and the next start."""
    times = [line["time"] for line in lines]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2]
    return sum(gap for gap in gaps if gap < 10 * usual) / 60
