"""From nothing to `data/miniature/`: each stage goes on from what lies in `build/miniature/`."""

import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTokenizer

from ..common.errors import UserError
from ..common.files import made_once, replaced, write_json
from ..common.places import data_folder, repository_folder
from ..model.base_model import save_parts
from .drawing import write_examples
from .fit import (
    Plan,
    device,
    draw_for_judging,
    draw_more_named,
    draw_sharp,
    draw_with_captions,
    load,
    make_shards,
    read_log,
)
from .judge import Judge, train_judge
from .networks import (
    build_tokenizer,
    encode_shards,
    make_round_trips,
    new_scheduler,
    train_autoencoder,
    train_diffusion,
    train_sharp_autoencoder,
)
from .report import write_report

_AUTOENCODER = Plan("vae", pictures=20_000, batch=8, lr=6e-3)
_SHARP = Plan("sharp", pictures=172_000, batch=64, lr=6e-3)
_SESSIONS = (
    Plan("diffusion-1", pictures=128_000, batch=64, lr=3e-3, cooldown=0.5),
    Plan("diffusion-2", pictures=280_000, batch=128, lr=2e-3, cooldown=0.7),
    Plan("diffusion-3", pictures=600_000, batch=128, lr=2e-3, cooldown=0.7),
)
_LAST_SESSION = Plan("diffusion-4", pictures=1_440_000, batch=1024, lr=3e-3, cooldown=0.7)
_JUDGE = Plan("judge", pictures=500_000, batch=100, lr=2e-3, cooldown=0.8)


@dataclass(frozen=True)
class Recipe:
    """The numbers of pictures. Four kinds of shards, of `shard` drawings each, are drawn."""

    shard: int = 4_000
    shards: int = 25
    named_shards: int = 40
    sharp_shards: int = 16
    judging_shards: int = 4
    autoencoder: Plan = _AUTOENCODER
    sessions: tuple[Plan, ...] = _SESSIONS
    last_session: Plan = _LAST_SESSION
    sharp: Plan = _SHARP
    judge: Plan = _JUDGE
    captions: int = 512  # to draw for in the report
    captions_with_names: int = 320
    fresh: int = 1_000  # drawings in the report

    def at(self, fraction: float) -> "Recipe":
        """The same recipe with a fraction of the pictures; of everything a little is left."""
        return replace(
            self,
            shard=max(8, round(self.shard * fraction)),
            autoencoder=self.autoencoder.at(fraction),
            sessions=tuple(plan.at(fraction) for plan in self.sessions),
            last_session=self.last_session.at(fraction),
            sharp=self.sharp.at(fraction),
            judge=self.judge.at(fraction),
            captions=max(16, round(self.captions * fraction)),
            captions_with_names=max(16, round(self.captions_with_names * fraction)),
            fresh=max(24, round(self.fresh * fraction)),
        )


RECIPE = Recipe()


def begin(recipe: Recipe, work: Path) -> None:
    """Note in the work folder by which recipe it is filled, and clear it of what a kill cut short.

    Raises:
        UserError: it is filled by another one, whose parts do not fit.
    """
    path, wanted = work / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    for left in (work / "pictures").glob("partial-*"):
        left.unlink()
    if not path.exists():
        write_json(path, wanted)
    elif json.loads(path.read_text()) != wanted:
        raise UserError(f"{work} holds parts of a build with other amounts: name another folder.")


def work_folder() -> Path:
    """Where the recipe keeps drawings, latents and checkpoints; it is not in git."""
    return repository_folder() / "build" / "miniature"


def build(recipe: Recipe = RECIPE, data: Path | None = None, work: Path | None = None) -> Path:
    """Make the miniature and its example pictures, or what a killed run left to be made.

    Args:
        data: gets `miniature/` and `grooty/`; the repository's `data/` by default.
        work: for what a killed run goes on from, on the same disk as `data`.

    Returns:
        The miniature's folder.
    """
    data, work = data or data_folder(), work or work_folder()
    begin(recipe, work)
    tokenizer = _tokenizer(work / "tokenizer")
    shards = _draw("captioned", recipe.shards, work, recipe, tokenizer_folder=work / "tokenizer")
    teacher = _autoencoder(
        work / "vae",
        lambda: train_autoencoder(load(shards[:-1], "pixels"), work, device(), recipe.autoencoder),
    )
    model = _text_encoder_and_unet(work, shards, tokenizer, teacher, recipe)
    sharp_shards = _draw("sharp", recipe.sharp_shards, work, recipe)
    vae = _autoencoder(
        work / "vae-sharp",
        lambda: train_sharp_autoencoder(sharp_shards, teacher, work, device(), recipe.sharp),
    )
    judge = _judge(work, shards, teacher, recipe)
    with replaced(data / "grooty", work) as folder:
        write_examples(folder)
    with replaced(data / "miniature", work) as folder:
        assemble(folder, tokenizer, vae, model)
        judge.save(folder)
        write_json(folder / "training.json", _notes(work, recipe))
        write_report(folder, recipe.captions, recipe.captions_with_names, recipe.fresh)
    return data / "miniature"


def _draw(kind: str, count: int, work: Path, recipe: Recipe, **arguments) -> list[Path]:
    draw = {
        "captioned": draw_with_captions,
        "named": draw_more_named,
        "sharp": draw_sharp,
        "judging": draw_for_judging,
    }[kind]
    return make_shards(kind, count, work / "pictures", partial(draw, size=recipe.shard, **arguments))


def _tokenizer(folder: Path) -> CLIPTokenizer:
    if not folder.exists():
        with made_once(folder) as unfinished:
            build_tokenizer(unfinished)
    return CLIPTokenizer.from_pretrained(folder)


def _autoencoder(folder: Path, train: Callable[[], AutoencoderKL]) -> AutoencoderKL:
    if not folder.exists():
        with made_once(folder) as unfinished:
            train().cpu().save_pretrained(unfinished)
    return AutoencoderKL.from_pretrained(folder).eval()


def _text_encoder_and_unet(
    work: Path, shards: list[Path], tokenizer: CLIPTokenizer, teacher: AutoencoderKL, recipe: Recipe
) -> nn.ModuleDict:
    """Trained in sessions; the last one starts from the mean of the two before it."""

    def session(plan: Plan, drawn: list[Path], start: nn.ModuleDict | None) -> nn.ModuleDict:
        latents = encode_shards(drawn, teacher, device())
        scale = teacher.config.scaling_factor
        return train_diffusion(latents, tokenizer, scale, start, work, device(), plan).cpu()

    before = model = None
    for plan in recipe.sessions:
        before = copy.deepcopy(model)
        model = session(plan, shards, model)
    named = _draw("named", recipe.named_shards, work, recipe, tokenizer_folder=work / "tokenizer")
    return session(recipe.last_session, named, mean_of(before, model))


def _judge(work: Path, shards: list[Path], teacher: AutoencoderKL, recipe: Recipe) -> Judge:
    """Trained on all drawings, and on the round trips of its own."""
    own = _draw("judging", recipe.judging_shards, work, recipe)
    sources = (shards + own, make_round_trips(own, teacher, device()))
    read = [(load(paths, "pixels"), load(paths, "labels")) for paths in sources]
    return train_judge(read, work, device(), recipe.judge)


@torch.no_grad()
def mean_of(before: nn.ModuleDict, after: nn.ModuleDict) -> nn.ModuleDict:
    """The weights halfway between two sessions.

    Source: Wortsman et al. 2022, "Model soups" (arXiv 2203.05482).
    """
    mean = copy.deepcopy(after)
    for value, other in zip(mean.parameters(), before.parameters(), strict=True):
        value.lerp_(other, 0.5)
    return mean


def assemble(folder: Path, tokenizer: CLIPTokenizer, vae: AutoencoderKL, model: nn.ModuleDict) -> None:
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
    save_parts(pipeline.to("cpu", torch.float16), folder)
    for config in folder.glob("*/config.json"):  # diffusers notes where on this machine a part came from
        values = json.loads(config.read_text(encoding="utf-8"))
        values.pop("_name_or_path", None)
        write_json(config, values)


def _notes(work: Path, recipe: Recipe) -> dict:
    """What the model card tells: of each part its pictures, minutes and losses, in the order of training."""
    size, few = recipe.shard, recipe.shards * recipe.shard
    session = "text encoder and UNet, session"
    parts = [
        (recipe.autoencoder, "autoencoder of 64 pixels, whose latents the UNet learns", few),
        *((plan, f"{session} {number}", few) for number, plan in enumerate(recipe.sessions, 1)),
        (recipe.last_session, f"{session} {len(recipe.sessions) + 1}", recipe.named_shards * size),
        (recipe.sharp, "autoencoder of 128 pixels, on the latents of the other", recipe.sharp_shards * size),
        (recipe.judge, "judge", few + recipe.judging_shards * size),
    ]
    return {"parts": [_note(work, *part) for part in parts]}


def _note(work: Path, plan: Plan, part: str, drawings: int) -> dict:
    """A part's log, thinned to a hundred lines, and what it was drawn from."""
    log = read_log(work, plan.name)
    return {
        "name": plan.name,
        "part": part,
        "pictures": log[-1]["pictures"],
        "drawings": drawings,
        "minutes": round(_minutes([line["time"] for line in log]), 1),
        "machine": torch.cuda.get_device_name() if device().type == "cuda" else f"{os.cpu_count()} cores",
        "ended": time.strftime("%Y-%m-%d", time.gmtime(log[-1]["time"])),
        "losses": [[line["pictures"], line["loss"]] for line in log[:: max(1, len(log) // 100)]],
    }


def _minutes(times: list[float]) -> float:
    """Time spent, without the breaks between a kill and the next start."""
    gaps = [later - sooner for sooner, later in pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0
    return sum(gap for gap in gaps if gap < 10 * usual) / 60
