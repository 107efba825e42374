"""Stable Diffusion 1.5's geometry with random weights: the sizes are the real ones, the pictures 256 px."""

import copy
from dataclasses import replace

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from helpers.concept.concept import Concept
from helpers.model.base_model import Components
from helpers.model.machine import diffusers, pick_dtype
from helpers.training.model import Model
from tests.families import clip_tokenizer

from .ledger import Ledger
from .ours import BareOurs
from .rivals import SourceLoop
from .setting import make_concept
from .timing import side_by_side

RESOLUTION = 256
ROUNDS = 4
ENTRIES = 49_408  # of the real tokenizers
NO_BFLOAT16 = (
    "This processor has no bfloat16 arithmetic (avx512_bf16): in that format it is slower than in float32."
)


def measure_sd15(ledger: Ledger) -> None:
    """Step times in float32 and, where the processor computes in it, in bfloat16."""
    ledger.once("sd15/steps", step_seconds)
    has_bfloat16 = pick_dtype("auto", "cpu") == torch.bfloat16
    ledger.say_why_not("sd15_step_ratio_bf16", None if has_bfloat16 else NO_BFLOAT16)


def step_seconds(rounds: int = ROUNDS) -> dict:
    """Seconds a step at batch 1 of the source's loop and of ours.

    All share one frozen UNet and VAE; the UNet takes each loop's memory format before its turn.
    """
    concept, parts = sd15_concept(), sd15_components()
    contenders = {
        "source": SourceLoop(_own_text_encoder(parts), concept),
        "ours": our_loop(_own_text_encoder(parts), concept),
    }
    if pick_dtype("auto", "cpu") == torch.bfloat16:
        contenders["ours_bf16"] = our_loop(_bfloat16_copy(parts), concept)
    steps = {name: contender.step for name, contender in contenders.items()}

    def take_format(name: str) -> None:
        is_theirs = name == "source"
        parts.unet.to(memory_format=torch.contiguous_format if is_theirs else torch.channels_last)

    return {"seconds": side_by_side(steps, rounds, in_turn=1, before_turn=take_format)}


def sd15_concept() -> Concept:
    return make_concept("sd15", train_batch_size=1)


def our_loop(parts: Components, concept: Concept) -> BareOurs:
    """Ours on these parts, as `load_model` prepares them."""
    parts.unet.to(memory_format=torch.channels_last)
    return BareOurs(concept, Model(parts, torch.device("cpu"), parts.unet.dtype, parts.resolution))


def _own_text_encoder(parts: Components) -> Components:
    return replace(
        parts,
        tokenizers=copy.deepcopy(parts.tokenizers),
        text_encoders=copy.deepcopy(parts.text_encoders),
    )


def _bfloat16_copy(parts: Components) -> Components:
    own = _own_text_encoder(parts)
    own.text_encoders[0].bfloat16()
    return replace(own, unet=copy.deepcopy(parts.unet).bfloat16())


def sd15_components() -> Components:
    """Random weights in the sizes of the model's own configuration files, for smaller pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = components("sd1", sd15_unet(), [CLIPTextModel(text_config(768, 12, 12))], 512, 0.18215)
    return replace(whole, resolution=RESOLUTION)


def sd15_unet():
    return diffusers().UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)


def text_config(width: int, layers: int, heads: int, **settings) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=ENTRIES,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        **{"hidden_act": "quick_gelu", **settings},
    )


def components(family: str, unet, encoders: list, resolution: int, scaling_factor: float) -> Components:
    """These parts, frozen, with the autoencoder of Stable Diffusion and tokenizers of as many entries."""
    library = diffusers()
    vae = library.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=resolution,
        scaling_factor=scaling_factor,
    )
    for part in (unet, vae, *encoders):
        part.requires_grad_(False).eval()
    return Components(
        tokenizers=[clip_tokenizer(padding, ENTRIES) for padding in ("<|endoftext|>", "!")[: len(encoders)]],
        text_encoders=encoders,
        vae=vae,
        unet=unet,
        scheduler=library.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        family=family,
        resolution=resolution,
    )
