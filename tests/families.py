"""Tiny models with random weights in the layout of the real families.

Their settings are those that ship with Stable Diffusion 1.5, 2.1 and XL, with only widths and depths
cut, so that nothing can rest on the miniature's sizes. The tokenizers are cut, too: transformers takes a
second or more to load one of 49,408 entries.
"""

import json
import string
from itertools import chain, islice, product
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from helpers.concept.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES
from helpers.model.machine import diffusers
from helpers.training.records import load_checkpoint

FAMILIES = ("sd1", "sd2", "sdxl")

_ENTRIES = 4_096
_SPECIAL = ["<|startoftext|>", "<|endoftext|>"]
_WORDS = "toy cat figurine robot bear plush beach snow forest table brown green red blue tall root".split()

_TEXT = {
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "max_position_embeddings": 77,
    "vocab_size": _ENTRIES,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "projection_dim": 32,
}
_FEATURES = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_SD_UNET = {
    "block_out_channels": (32, 64, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 1,
    "cross_attention_dim": 32,
}


def make_family(family: str, folder: Path) -> Path:
    """Write one family's model into `folder` (once) and return it."""
    if not (folder / "model_index.json").is_file():
        torch.manual_seed(0)
        {"sd1": _make_sd1, "sd2": _make_sd2, "sdxl": _make_sdxl}[family](folder)
    return folder


def _make_sd1(folder):
    library = diffusers()
    unet = library.UNet2DConditionModel(**_SD_UNET, attention_head_dim=8, sample_size=64)
    scheduler = library.PNDMScheduler(**_BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    encoder = CLIPTextModel(CLIPTextConfig(**_TEXT, hidden_act="quick_gelu"))
    _save(folder, "StableDiffusionPipeline", unet, _vae(512), scheduler, [encoder], ["<|endoftext|>"])
    _add_safety_checker(folder)


def _make_sd2(folder):
    library = diffusers()
    unet = library.UNet2DConditionModel(
        **_SD_UNET,
        attention_head_dim=(1, 2, 2, 2),
        sample_size=96,
        use_linear_projection=True,
        upcast_attention=True,
    )
    scheduler = library.DDIMScheduler(
        **_BETAS, prediction_type="v_prediction", steps_offset=1, set_alpha_to_one=False, clip_sample=False
    )
    encoder = CLIPTextModel(CLIPTextConfig(**_TEXT, hidden_act="gelu"))
    _save(folder, "StableDiffusionPipeline", unet, _vae(768), scheduler, [encoder], ["!"])


def _make_sdxl(folder):
    library = diffusers()
    width, time_width = 48, 32
    unet = library.UNet2DConditionModel(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=_TEXT["hidden_size"] + width,
        attention_head_dim=(1, 2, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=width + 6 * time_width,
        use_linear_projection=True,
        sample_size=128,
    )
    scheduler = library.EulerDiscreteScheduler(**_BETAS, timestep_spacing="leading", steps_offset=1)
    larger = {**_TEXT, "hidden_size": width, "projection_dim": width, "hidden_act": "gelu"}
    encoders = [
        CLIPTextModel(CLIPTextConfig(**_TEXT, hidden_act="quick_gelu")),
        CLIPTextModelWithProjection(CLIPTextConfig(**larger)),
    ]
    vae = _vae(1024, scaling_factor=0.13025, force_upcast=True)
    _save(folder, "StableDiffusionXLPipeline", unet, vae, scheduler, encoders, ["<|endoftext|>", "!"])


def _vae(sample_size, **settings):
    return diffusers().AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=sample_size,
        **settings,
    )


def _add_safety_checker(folder):
    """1.5 is the one that ships with a checker. With these weights it never refuses a picture."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    cut = {name: _TEXT[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    cut |= {"num_attention_heads": 2, "projection_dim": 32}
    config = CLIPConfig(text_config=cut, vision_config={**cut, "patch_size": 14}, projection_dim=32)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(_FEATURES))
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))


def _save(folder, pipeline, unet, vae, scheduler, encoders, paddings):
    parts = {"unet": unet, "vae": vae, "scheduler": scheduler}
    for suffix, encoder, padding in zip(("", "_2"), encoders, paddings, strict=False):
        parts[f"text_encoder{suffix}"] = encoder
        parts[f"tokenizer{suffix}"] = clip_tokenizer(padding)
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
    optional = {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index, **optional}))


def clip_tokenizer(padding: str, size: int = _ENTRIES) -> CLIPTokenizer:
    """A CLIP tokenizer; the words of the templates and a few others are one token each.

    As in the real one: 512 entries for bytes, then the merges, the two special tokens at the end.
    """
    merges = _merges(size)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges), *_SPECIAL]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    assert len(vocabulary) == size
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=padding, model_max_length=77)


def _merges(size: int) -> list[tuple[str, str]]:
    """Merges learned from the words above, then fillers that bring the table to its size."""
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in product(letters, repeat=2)]
    merges = _learned_merges()
    made = {"".join(pair) for pair in merges}
    fillers = (
        pair for pair in chain(product(letters, repeat=2), product(pairs, pairs)) if "".join(pair) not in made
    )
    return [*merges, *islice(fillers, size - 512 - len(_SPECIAL) - len(merges))]


def _learned_merges() -> list[tuple[str, str]]:
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    words = " ".join([*OBJECT_TEMPLATES, *STYLE_TEMPLATES, *_WORDS]).replace("{}", "")
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator([words], trainer)
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def on_model(concept, folder, **training):
    """The concept on a tiny model, as a step is quickest there."""
    settings = {"resolution": 64, "sample_every": 0, "mixed_precision": "no", **training}
    return concept.changed(base_model=str(folder), training=settings)


def last_state(concept):
    """The learner's part of a run's last checkpoint."""
    return load_checkpoint(concept.training_folder)["learner"]
