"""Builds `data/miniature/` from scratch; a killed build resumes from `build/miniature/`."""

import copy
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from ..common.errors import UserError
from ..common.files import atomic_file, made_once, read_json, replaced, write_json
from ..common.places import data_folder, repository_folder
from ..model.base_model import save_parts
from ..model.vae import decode, to_image
from . import networks, world
from .drawing import SHARP_SIDE, pixels_of, write_examples
from .fit import Plan, device, read_log
from .report import write_report
from .world import Drawing

Arrays = dict[str, np.ndarray]
_SHARD_SIZE = 4_000  # drawings in a file, at most
_FEWEST = 8  # drawings of a kind, in a small build

# The parts, in the order of their training.
_PLANS = (
    Plan("vae", pictures=20_000, batch=8, lr=6e-3),
    Plan("diffusion-1", pictures=128_000, batch=64, lr=3e-3, cooldown=0.5),
    Plan("diffusion-2", pictures=280_000, batch=128, lr=2e-3, cooldown=0.7),
    Plan("diffusion-3", pictures=600_000, batch=128, lr=2e-3, cooldown=0.7),
    Plan("diffusion-4", pictures=1_440_000, batch=1024, lr=3e-3, cooldown=0.7),
    Plan("sharp", pictures=172_000, batch=64, lr=6e-3),
    Plan("judge", pictures=500_000, batch=100, lr=2e-3, cooldown=0.8),
)
# What the model card calls a part, and the kinds of drawings that it is trained on.
_ABOUT = {
    "vae": ("autoencoder of 64 pixels, whose latents the UNet learns", ["captioned"]),
    "diffusion-1": ("text encoder and UNet, session 1", ["captioned"]),
    "diffusion-2": ("text encoder and UNet, session 2", ["captioned"]),
    "diffusion-3": ("text encoder and UNet, session 3", ["captioned"]),
    "diffusion-4": ("text encoder and UNet, session 4", ["named"]),
    "sharp": ("autoencoder of 128 pixels, on the latents of the other", ["sharp"]),
    "judge": ("judge", ["captioned", "judging"]),
}


def work_folder() -> Path:
    """For drawings, latents and checkpoints; not in git."""
    return repository_folder() / "build" / "miniature"


def build(fraction: float = 1.0, data: Path | None = None, work: Path | None = None) -> Path:
    """Build the miniature and its example pictures, or resume a killed build; returns its folder.

    Args:
        fraction: of the pictures, for a small build; a few of each kind remain.
        data: gets `miniature/` and `grooty/`; the repository's `data/` by default.
        work: for intermediate results, on the same disk as `data`.
    """
    data, work = data or data_folder(), work or work_folder()
    plans = begin(fraction, work)
    draw = partial(make_shards, fraction=fraction, folder=work / "pictures")
    captioned = draw("captioned")
    teacher = networks.train_autoencoder(load(captioned, "pixels"), plans["vae"], work)
    tokenizer = _tokenizer(work / "tokenizer")
    model = _train_denoiser(plans, captioned, draw, teacher, tokenizer, work)
    sharp = draw("sharp")
    latents = torch.from_numpy(load(_latents(sharp, teacher), "latents")).float()
    scale = teacher.config.scaling_factor
    vae = networks.train_sharp_autoencoder(load(sharp, "sharp"), latents, scale, plans["sharp"], work)
    judging = draw("judging")
    sources = (captioned + judging, _round_trips(judging, teacher))
    read = [(load(paths, "pixels"), load(paths, "labels")) for paths in sources]
    judge = networks.train_judge(read, plans["judge"], work)
    with replaced(data / "grooty", work) as folder:
        write_examples(folder)
    with replaced(data / "miniature", work) as folder:
        _assemble(folder, tokenizer, vae, model)
        judge.save(folder)
        notes = [_training_note(plan, fraction, work) for plan in plans.values()]
        write_json(folder / "training.json", {"parts": notes})
        write_report(folder, fraction)
    return data / "miniature"


def begin(fraction: float, work: Path) -> dict[str, Plan]:
    """The plans by name; the work folder records them.

    Raises:
        UserError: it holds parts that were made by other plans.
    """
    plans = {plan.name: plan.at(fraction) for plan in _PLANS}
    path, wanted = work / "recipe.json", [asdict(plan) for plan in plans.values()]
    if not path.exists():
        write_json(path, wanted)
    elif read_json(path) != wanted:
        raise UserError(f"{work} holds parts of a build with other amounts: name another folder.")
    return plans


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Learned once: of two equally frequent merges, another run may learn the other one first."""
    if not folder.exists():
        with made_once(folder) as unfinished:
            networks.new_tokenizer().save_pretrained(unfinished)
    return CLIPTokenizer.from_pretrained(folder)


# Drawings for training are made once and kept in shards.


def make_shards(kind: str, fraction: float, folder: Path) -> list[Path]:
    """Draw a fraction of a kind's drawings into shards; existing ones are kept."""
    first, _, draw = _DRAWINGS[kind]
    paths, count = [], drawings_of(kind, fraction)
    for number, done in enumerate(tqdm(range(0, count, _SHARD_SIZE), desc=f"{kind} drawings", unit="shard")):
        paths.append(folder / f"{kind}-{number:03d}.npz")
        make_once(paths[-1], draw, first + number, min(_SHARD_SIZE, count - done))
    return paths


def drawings_of(kind: str, fraction: float) -> int:
    """The number of drawings of a kind."""
    return max(_FEWEST, round(_DRAWINGS[kind][1] * fraction))


def make_once(path: Path, make: Callable[..., Arrays], *given) -> None:
    """Make arrays and save them atomically, unless the file exists already."""
    if not path.exists():
        with atomic_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **make(*given))


def load(paths: list[Path], name: str) -> np.ndarray:
    """One array from all shards, concatenated."""
    return np.concatenate([np.load(path)[name] for path in paths])


def _labelled(drawings: list[Drawing]) -> Arrays:
    """`pixels` (N, 64, 64, 3) uint8, and `labels` (N, attributes) int8 as `world.labels_of` gives them."""
    labels = np.array([world.labels_of(one) for one in drawings], np.int8)
    return {"pixels": pixels_of(drawings), "labels": labels}


def _draw_captioned(number: int, size: int, named: float = world.NAMED_FRACTION) -> Arrays:
    """For text encoder and UNet: as `_labelled`, and `sentences` (N, captions).

    Args:
        named: the fraction of toys with a name.
    """
    rng, toys = np.random.default_rng([2026, number]), world.named_toys()
    drawings, sentences = [], []
    for _ in range(size):
        name = world.random_name(rng, toys, named)
        drawings.append(world.sample_drawing(rng, toys.get(name)))
        sentences.append([world.caption(drawings[-1], rng, name)[0] for _ in range(world.CAPTIONS)])
    return _labelled(drawings) | {"sentences": np.array(sentences)}


def _draw_sharp(number: int, size: int) -> Arrays:
    """For the sharp autoencoder: `sharp` (N, 128, 128, 3), and the same at 64 pixels in `pixels`."""
    drawings = world.sample_drawings(size, number)
    return {"sharp": pixels_of(drawings, SHARP_SIDE), "pixels": pixels_of(drawings)}


# For each kind of drawings: the number of its first shard, how many drawings there are, and what draws a
# shard. The number is the random seed; the report uses other ones.
_DRAWINGS: dict[str, tuple[int, int, Callable[[int, int], Arrays]]] = {
    "captioned": (0, 100_000, _draw_captioned),
    "named": (500, 160_000, partial(_draw_captioned, named=world.MORE_NAMED_FRACTION)),
    "sharp": (0, 64_000, _draw_sharp),
    "judging": (1_000, 16_000, lambda number, size: _labelled(world.drawings_for_judging(size, number))),
}


def _derived(
    shards: list[Path], what: str, vae: AutoencoderKL, make: Callable[[Arrays], Arrays]
) -> list[Path]:
    """A file beside each shard, made once from its contents with the autoencoder.

    The file name has a hash of the autoencoder's weights, so that files of another one are not used.
    """
    weights = b"".join(one.cpu().numpy().tobytes() for one in vae.state_dict().values())
    kind = f"{what.replace(' ', '-')}-{hashlib.sha256(weights).hexdigest()[:8]}"
    paths = [shard.with_name(f"{kind}-{shard.name}") for shard in shards]
    for shard, path in zip(tqdm(shards, desc=what, unit="shard"), paths, strict=True):
        make_once(path, make, np.load(shard))
    return paths


def _latents(shards: list[Path], vae: AutoencoderKL, tokenizer: CLIPTokenizer | None = None) -> list[Path]:
    """`latents` (N, 4, 16, 16) float16, scaled; with a tokenizer also `ids` (N, captions, tokens) int16."""

    def encode(drawn: Arrays) -> Arrays:
        made = {"latents": networks.encoded(vae, drawn["pixels"]).half().numpy()}
        if tokenizer:
            sentences = drawn["sentences"].ravel().tolist()
            ids = tokenizer(sentences, padding="max_length", truncation=True).input_ids
            made["ids"] = np.array(ids, np.int16).reshape(-1, world.CAPTIONS, tokenizer.model_max_length)
        return made

    return _derived(shards, "latents", vae, encode)


def _round_trips(shards: list[Path], vae: AutoencoderKL) -> list[Path]:
    """`pixels` as the autoencoder reconstructs them, and their `labels`."""

    def rebuild(drawn: Arrays) -> Arrays:
        rebuilt = decode(vae, networks.encoded(vae, drawn["pixels"]), device(), batch=networks.BATCH)
        return {"pixels": np.array([np.asarray(to_image(one)) for one in rebuilt]), "labels": drawn["labels"]}

    return _derived(shards, "round trips", vae, rebuild)


def _train_denoiser(
    plans: dict[str, Plan],
    captioned: list[Path],
    draw: Callable[[str], list[Path]],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    work: Path,
) -> nn.ModuleDict:
    """Text encoder and UNet, trained in sessions; the last starts from the mean of the two before it."""

    def session(number: int, shards: list[Path], start: nn.ModuleDict | None) -> nn.ModuleDict:
        made = _latents(shards, vae, tokenizer)
        latents, ids = (torch.from_numpy(load(made, name)) for name in ("latents", "ids"))
        plan, scale = plans[f"diffusion-{number}"], vae.config.scaling_factor
        return networks.train_denoiser(latents, ids, tokenizer, scale, start, plan, work)

    before = session(2, captioned, session(1, captioned, None))
    after = session(3, captioned, copy.deepcopy(before))
    return session(4, draw("named"), mean_of(before, after))


@torch.no_grad()
def mean_of(before: nn.ModuleDict, after: nn.ModuleDict) -> nn.ModuleDict:
    """The weights halfway between two sessions.

    Source: Wortsman et al. 2022, "Model soups" (arXiv 2203.05482).
    """
    mean = copy.deepcopy(after)
    for value, other in zip(mean.parameters(), before.parameters(), strict=True):
        value.lerp_(other, 0.5)
    return mean


def _assemble(folder: Path, tokenizer: CLIPTokenizer, vae: AutoencoderKL, model: nn.ModuleDict) -> None:
    """Save the parts and the scheduler in Stable Diffusion 1.5's layout, in half precision."""
    pipeline = StableDiffusionPipeline(
        tokenizer=tokenizer,
        vae=vae,
        text_encoder=model["text_encoder"],
        unet=model["unet"],
        scheduler=networks.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_parts(pipeline.to("cpu", torch.float16), folder)


def _training_note(plan: Plan, fraction: float, work: Path) -> dict:
    """For the model card: what a part was trained on, for how long, and about a hundred of its losses."""
    log, (part, kinds) = read_log(work, plan.name), _ABOUT[plan.name]
    ended = (work / f"{plan.name}.pt").stat().st_mtime
    return {
        "name": plan.name,
        "part": part,
        "pictures": log[-1]["pictures"],
        "drawings": sum(drawings_of(kind, fraction) for kind in kinds),
        "minutes": round(log[-1]["seconds"] / 60, 1),
        "machine": torch.cuda.get_device_name() if device().type == "cuda" else f"{os.cpu_count()} cores",
        "ended": time.strftime("%Y-%m-%d", time.gmtime(ended)),
        "losses": [[line["pictures"], line["loss"]] for line in log[:: max(1, len(log) // 100)]],
    }
