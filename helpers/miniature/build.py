"""From nothing to `data/miniature/`: each stage goes on from what lies in `build/miniature/`."""

import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ..common.errors import UserError
from ..common.files import made_once, replaced
from ..common.places import data_folder, miniature_folder, repository_folder
from .autoencoder import PLAN as AUTOENCODER_PLAN
from .autoencoder import (
    POLISH_PLAN,
    make_round_trips,
    polish_autoencoder,
    train_autoencoder,
    train_decoder_on,
)
from .diffusion import encode_shards, new_scheduler, train_diffusion
from .drawing import write_examples
from .fit import Plan, device
from .judge import PLAN as JUDGE_PLAN
from .judge import Judge, train_judge
from .pictures import SHARD, load_labels, load_pixels, make_judging_shards, make_shards
from .report import write_report
from .tokenizer import build_tokenizer


@dataclass(frozen=True)
class Recipe:
    """The numbers of pictures. `shards` and `judging_shards` of `shard` drawings each are drawn."""

    shard: int = SHARD
    shards: int = 25
    judging_shards: int = 4
    autoencoder: Plan = AUTOENCODER_PLAN
    sittings: tuple[Plan, ...] = (
        Plan("diffusion-1", pictures=128_000, batch=64, lr=3e-3, cooldown=0.5),
        Plan("diffusion-2", pictures=280_000, batch=128, lr=2e-3, cooldown=0.7),
        Plan("diffusion-3", pictures=600_000, batch=128, lr=2e-3, cooldown=0.7),
    )
    polish: Plan = POLISH_PLAN
    judge: Plan = JUDGE_PLAN
    captions: int = 512  # to draw for in the report
    fresh: int = 1_000  # drawings in the report

    @property
    def drawings(self) -> int:
        """How many drawings the model is trained on."""
        return self.shards * self.shard

    @property
    def judged(self) -> int:
        """How many drawings the judge is trained on."""
        return self.drawings + self.judging_shards * self.shard

    def at(self, share: float) -> "Recipe":
        """The same recipe with a share of the pictures; of everything a little is left."""
        return Recipe(
            shard=max(8, round(self.shard * share)),
            autoencoder=self.autoencoder.at(share),
            sittings=tuple(plan.at(share) for plan in self.sittings),
            polish=self.polish.at(share),
            judge=self.judge.at(share),
            captions=max(16, round(self.captions * share)),
            fresh=max(50, round(self.fresh * share)),
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
        work.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(wanted, indent=1) + "\n")
        unfinished.replace(path)
    elif json.loads(path.read_text()) != wanted:
        raise UserError(f"{work} holds parts of a build with other amounts: name another folder.")


def work_folder() -> Path:
    """Where the recipe keeps drawings, latents and checkpoints; git does not."""
    return repository_folder() / "build" / "miniature"


def build(recipe: Recipe = RECIPE, data: Path | None = None, work: Path | None = None) -> Path:
    """Make the whole of the miniature, or what a killed run left to be made.

    Args:
        recipe: how much of everything.
        data: gets `miniature/` and `grooty/`; the repository's `data/` by default.
        work: for what a killed run goes on from, on the same disk as `data`.

    Returns:
        The miniature's folder.
    """
    data, work = data or data_folder(), work or work_folder()
    begin(recipe, work)
    tokenizer = _tokenizer(work)
    shards = make_shards(recipe.shards, work / "pictures", work / "tokenizer", recipe.shard)
    vae = _autoencoder(work, shards, recipe.autoencoder)
    before = model = None
    for plan in recipe.sittings:
        before = copy.deepcopy(model)
        model = _sitting(work, shards, tokenizer, vae, plan, start=model)
    model = mean_of(before, model)
    vae = _polished(work, shards, vae, recipe.polish)
    judge = _judge(work, shards, vae, recipe, recipe.judge)
    with replaced(data / "grooty", work) as folder:
        write_examples(folder)
    with replaced(data / "miniature", work) as folder:
        assemble(folder, tokenizer, vae, model)
        judge.save(folder)
        _write_notes(folder, _notes(work, recipe))
        write_report(folder, recipe.captions, recipe.fresh)
    return data / "miniature"


def sit_again(pictures: int) -> Path:
    """Train the shipped weights on; what ships then is the mean of before and after, as in `build`.

    Same autoencoder and tokenizer, the optimizer anew at a lower rate.
    """
    shipped, work = miniature_folder(), work_folder()
    tokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    notes = json.loads((shipped / "training.json").read_text())
    if not (work / "tokenizer").exists():
        with made_once(work / "tokenizer") as folder:
            shutil.copytree(shipped / "tokenizer", folder, dirs_exist_ok=True)
    vae = AutoencoderKL.from_pretrained(shipped / "vae").eval()
    shards = make_shards(RECIPE.shards, work / "pictures", work / "tokenizer")
    plan = Plan(f"diffusion-{len(notes['sittings']) + 1}", pictures, batch=128, lr=2e-3, cooldown=0.7)
    model = _sitting(work, shards, tokenizer, vae, plan, start=_shipped_model(shipped))
    sittings = [*notes["sittings"], note(work, plan.name, RECIPE.drawings)]
    with replaced(shipped, work) as folder:
        assemble(folder, tokenizer, vae, mean_of(_shipped_model(shipped), model))
        _write_notes(folder, {**notes, "sittings": sittings})
    return shipped


def polish_again(pictures: int) -> Path:
    """Train the shipped autoencoder's decoder on, for drawings that have changed; the UNet fits as before."""
    shipped, work = miniature_folder(), work_folder()
    shards = make_shards(RECIPE.shards, work / "pictures", shipped / "tokenizer")
    notes = json.loads((shipped / "training.json").read_text())
    plan = Plan("decoder", pictures, batch=8, lr=2e-3, cooldown=0.9)
    vae = AutoencoderKL.from_pretrained(shipped / "vae", torch_dtype=torch.float32)
    vae = train_decoder_on(vae, load_pixels(shards[:-1]), work, device(), plan).cpu()
    tokenizer, model = CLIPTokenizer.from_pretrained(shipped / "tokenizer"), _shipped_model(shipped)
    with replaced(shipped, work) as folder:
        assemble(folder, tokenizer, vae, model)
        _write_notes(folder, {**notes, "decoder": note(work, plan.name, RECIPE.drawings)})
    return shipped


def judge_again(pictures: int) -> Path:
    """Train the shipped judge on, with the shipped autoencoder's round trips."""
    shipped, work = miniature_folder(), work_folder()
    shards = make_shards(RECIPE.shards, work / "pictures", shipped / "tokenizer")
    notes = json.loads((shipped / "training.json").read_text())
    plan = replace(RECIPE.judge, name=f"judge-{len(notes['judge']) + 1}", pictures=pictures)
    vae = AutoencoderKL.from_pretrained(shipped / "vae", torch_dtype=torch.float32).eval()
    judge = _judge(work, shards, vae, RECIPE, plan, start=Judge.load(shipped))
    with replaced(shipped, work) as folder:
        judge.save(folder)
        _write_notes(folder, {**notes, "judge": [*notes["judge"], note(work, plan.name, RECIPE.judged)]})
    return shipped


@torch.no_grad()
def mean_of(before: nn.ModuleDict, after: nn.ModuleDict) -> nn.ModuleDict:
    """The weights halfway between two sittings.

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
    pipeline.to("cpu", torch.float16).save_pretrained(folder)
    for config in folder.glob("*/config.json"):
        _forget_origin(config)


def _forget_origin(config: Path) -> None:
    """diffusers notes the folder that a part was loaded from, on this machine."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _tokenizer(work: Path) -> CLIPTokenizer:
    if not (work / "tokenizer").exists():
        with made_once(work / "tokenizer") as folder:
            build_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def _autoencoder(work: Path, shards: list[Path], plan: Plan) -> AutoencoderKL:
    if not (work / "vae").exists():
        _keep(train_autoencoder(load_pixels(shards[:-1]), work, device(), plan), work / "vae")
    return AutoencoderKL.from_pretrained(work / "vae").eval()


def _polished(work: Path, shards: list[Path], vae: AutoencoderKL, plan: Plan) -> AutoencoderKL:
    if not (work / "vae-polished").exists():
        polished = polish_autoencoder(vae, load_pixels(shards[:-1]), work, device(), plan)
        _keep(polished, work / "vae-polished")
    return AutoencoderKL.from_pretrained(work / "vae-polished").eval()


def _keep(vae: AutoencoderKL, folder: Path) -> None:
    with made_once(folder) as unfinished:
        vae.cpu().save_pretrained(unfinished)


def _sitting(work, shards, tokenizer, vae, plan: Plan, start: nn.ModuleDict | None) -> nn.ModuleDict:
    on = device()
    latents = encode_shards(shards, vae.to(on, memory_format=torch.channels_last), on)
    return train_diffusion(latents, tokenizer, vae.config.scaling_factor, start, plan, work, on).cpu()


def _judge(
    work: Path, shards: list[Path], vae: AutoencoderKL, recipe: Recipe, plan: Plan, start: Judge | None = None
) -> Judge:
    """Trained on all drawings, and on the round trips of its own."""
    own = make_judging_shards(recipe.judging_shards, work / "pictures", recipe.shard)
    sources = (shards + own, make_round_trips(own, vae, device()))
    pictures = [(load_pixels(paths), load_labels(paths)) for paths in sources]
    return train_judge(pictures, work, device(), plan, start)


def _shipped_model(folder: Path) -> nn.ModuleDict:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    return nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})


def _notes(work: Path, recipe: Recipe) -> dict:
    """What the model card tells: of each part its pictures, minutes and losses."""
    plans = (recipe.autoencoder, recipe.polish, *recipe.sittings)
    vae, polish, *sittings = [note(work, plan.name, recipe.drawings) for plan in plans]
    judge = [note(work, recipe.judge.name, recipe.judged)]
    return {"vae": vae, "polish": polish, "sittings": sittings, "judge": judge}


def _write_notes(folder: Path, notes: dict) -> None:
    (folder / "training.json").write_text(json.dumps(notes, indent=1) + "\n")


def note(work: Path, name: str, drawings: int) -> dict:
    """A part's log, thinned to a hundred lines, and what it was drawn from."""
    lines = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
    thin = lines[:: max(1, len(lines) // 100)]
    return {
        "name": name,
        "pictures": lines[-1]["pictures"],
        "minutes": round(_minutes(lines), 1),
        "losses": [[line["pictures"], line["loss"]] for line in thin],
        "ended": time.strftime("%Y-%m-%d", time.gmtime(lines[-1]["time"])),
        "drawings": drawings,
    }


def _minutes(lines: list[dict]) -> float:
    """Time spent, without the breaks between a kill and the next start."""
    times = [line["time"] for line in lines]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0
    return sum(gap for gap in gaps if gap < 10 * usual) / 60
