"""Seconds and memory on a GPU at Stable Diffusion 1.5's and XL's sizes, with random weights.

`python -m tests.bench.cuda` measures ours beside the loop of diffusers' `textual_inversion.py` and
`textual_inversion_sdxl.py`, both at batch 1 with bfloat16 weights, and writes `cuda.json`. Each loop has a
process of its own, since CUDA's allocator remembers the one before.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from helpers.common.errors import UserError
from helpers.common.files import write_whole
from helpers.common.places import ROOT_VARIABLE, repository_folder
from helpers.concept.concept import Concept
from helpers.dataset.dataset import TextualInversionDataset
from helpers.model.base_model import Components
from helpers.model.machine import diffusers
from helpers.model.tokens import initializer_ids
from helpers.training.model import Model
from helpers.training.step import target_of

from .geometry import components, sd15_unet, text_config
from .ours import BareOurs
from .setting import make_concept

PATH = Path(__file__).with_name("cuda.json")
SIZES = {"sd15": (512, 1024), "sdxl": (512, 1024)}
WARM_UP, STEPS = 5, 20
GPU, DTYPE = "cuda", torch.bfloat16


class DiffusersLoopOnCuda:
    """diffusers' scripts under `--mixed_precision bf16`, for one or two text encoders.

    UNet and VAE are held in bfloat16, the text encoders in float32 under autocast; AdamW moves each
    encoder's whole table, then all rows but the new one are copied back. Each picture is encoded anew.
    """

    def __init__(self, parts: Components, concept: Concept, resolution: int):
        self.parts, self.resolution = parts, resolution
        parts.unet.to(DTYPE)
        parts.vae.to(GPU, DTYPE)
        self.words = [self._add_word(concept, number) for number in range(len(parts.tokenizers))]
        self.tables = [encoder.get_input_embeddings().weight for encoder in parts.text_encoders]
        for encoder, table in zip(parts.text_encoders, self.tables, strict=True):
            encoder.train()
            table.requires_grad_(True)
        self.originals = [table.detach().clone() for table in self.tables]
        self.optimizer = torch.optim.AdamW(self.tables, lr=5e-4)
        self.model = Model(parts, torch.device(GPU), DTYPE, resolution)
        examples = TextualInversionDataset(concept, parts.tokenizers, resolution)
        self.batches = iter(DataLoader(examples, batch_size=1, sampler=itertools.count()))

    def step(self) -> None:
        batch = next(self.batches)
        with torch.no_grad():
            pixels = batch["pixel_values"].to(GPU, DTYPE)
            latents = self.parts.vae.encode(pixels).latent_dist.sample()
            latents = latents * self.parts.vae.config.scaling_factor
        noise, scheduler = torch.randn_like(latents), self.parts.scheduler
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=GPU)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast(GPU, DTYPE):
            conditioning = self.model.embed([ids.to(GPU) for ids in batch["input_ids"]])
            prediction = self.parts.unet(noisy, timesteps, **conditioning).sample
        F.mse_loss(prediction.float(), target_of(scheduler, latents, noise, timesteps).float()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for table, original, word in zip(self.tables, self.originals, self.words, strict=True):
            others = torch.arange(len(table), device=GPU) != word
            table[others] = original[others]

    @torch.no_grad()
    def _add_word(self, concept: Concept, number: int) -> int:
        tokenizer, encoder = self.parts.tokenizers[number], self.parts.text_encoders[number]
        [start] = initializer_ids(tokenizer, concept.initializer_token, vectors=1)
        tokenizer.add_tokens(concept.placeholder_token)
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        word = tokenizer.convert_tokens_to_ids(concept.placeholder_token)
        table = encoder.get_input_embeddings().weight
        table[word] = table[start]
        return word


def our_loop(parts: Components, concept: Concept, resolution: int) -> BareOurs:
    """Ours on these parts, as `load_model` prepares them."""
    parts.unet.to(DTYPE, memory_format=torch.channels_last)
    for encoder in parts.text_encoders:
        encoder.to(DTYPE)
    return BareOurs(concept, Model(parts, torch.device(GPU), DTYPE, resolution))


def take_steps(loop: str, size: str, resolution: int, batch: int) -> dict[str, float]:
    """Set a loop up and take steps.

    Returns:
        `seconds`: the median step. `peak_bytes`: the most that CUDA held in steps, the model included.
        `weights_bytes`: what the model alone takes on the GPU before the loop is set up.
    """
    concept = make_concept(f"{size}-{loop}", resolution=resolution, train_batch_size=batch)
    parts = {"sd15": sd15, "sdxl": sdxl}[size]()
    weights = torch.cuda.memory_allocated()
    make = {"diffusers": DiffusersLoopOnCuda, "ours": our_loop}[loop]
    contender = make(parts, concept, resolution)
    seconds = []
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = perf_counter()
        contender.step()
        torch.cuda.synchronize()
        seconds.append(perf_counter() - started)
    peak = torch.cuda.max_memory_allocated()
    return {"seconds": median(seconds[WARM_UP:]), "peak_bytes": peak, "weights_bytes": weights}


def sd15() -> Components:
    """Stable Diffusion 1.5's sizes."""
    with torch.device(GPU):
        unet, encoders = sd15_unet(), [CLIPTextModel(text_config(768, 12, 12))]
    return components("sd1", unet, encoders, 512, 0.18215)


def sdxl() -> Components:
    """Stable Diffusion XL's sizes."""
    with torch.device(GPU):
        unet = (
            diffusers()
            .UNet2DConditionModel(
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10),
                cross_attention_dim=2048,
                attention_head_dim=(5, 10, 20),
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
                use_linear_projection=True,
                sample_size=128,
            )
            .to(DTYPE)
        )
        larger = text_config(1280, 32, 20, hidden_act="gelu", projection_dim=1280)
        encoders = [CLIPTextModel(text_config(768, 12, 12)), CLIPTextModelWithProjection(larger)]
    return components("sdxl", unet, encoders, 1024, 0.13025)


def measure_all(path: Path) -> None:
    """Every loop at every size, ours at 512 px with batch 4 as well, each in a process of its own.

    What the file has already, of the same card and torch, is not measured again.
    """
    found = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = all(before.get(name) == value for name, value in found.items())
    measurements = found["measurements"] = before["measurements"] if same else {}
    for size, resolution, loop, batch in _plan():
        name = f"{size}/{resolution}/{loop}/{batch}"
        if name in measurements:
            continue
        one = ["--one", loop, size, str(resolution), str(batch)]
        command = [sys.executable, "-m", "tests.bench.cuda", *one]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=repository_folder())
        if done.returncode == 0:
            measurements[name] = json.loads(done.stdout.splitlines()[-1])
            write_whole(path, json.dumps(found, indent=1) + "\n")
        print(name, measurements.get(name), flush=True)


def _plan() -> Iterator[tuple[str, int, str, int]]:
    for size, resolutions in SIZES.items():
        for resolution in resolutions:
            yield size, resolution, "diffusers", 1
            yield size, resolution, "ours", 1
            if size == "sd15" and resolution == 512:
                yield size, resolution, "ours", 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.cuda", description=__doc__.split("\n")[0])
    parser.add_argument("--one", nargs=4, metavar=("LOOP", "SIZE", "RESOLUTION", "BATCH"))
    parser.add_argument("--into", type=Path, default=PATH)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(str(UserError("There is no CUDA here: run this on a machine with a GPU.")))
    if given.one:
        loop, size, resolution, batch = given.one
        with tempfile.TemporaryDirectory() as root:
            os.environ[ROOT_VARIABLE] = root
            print(json.dumps(take_steps(loop, size, int(resolution), int(batch))))
        return
    measure_all(given.into)


if __name__ == "__main__":
    main()
