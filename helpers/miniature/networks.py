"""The parts of the miniature and how each is trained: tokenizer, two autoencoders, text encoder and UNet.

The small autoencoder, whose latents the UNet learns, reads pictures of 64 x 64, the sharp one, which ships,
of 128 x 128; the latents, 4 x 16 x 16, mean the same to both. Small pictures make training quick, and the
UNet need not know which one draws what it made.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn.attention import sdpa_kernel
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..model.tokens import CAPTION_WORDS
from ..model.vae import decode, encode, to_image
from .drawing import PICTURE_SIDE, SHARP_SIDE
from .fit import (
    Plan,
    attention_backends,
    autocast,
    compile_where_it_pays,
    fit,
    generator_of,
    load,
    save_whole,
    to_tensor,
)
from .world import caption, named_toys, sample_drawing

# The tokenizer: CLIP's byte-pair encoding, learned on captions of the world. Every word of the world is one
# token; any other text falls into pieces, down to single bytes.
MAX_LENGTH = 48  # tokens of a prompt, the two that mark its ends included
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
# Words that no caption holds, but that a person may start from or say.
_FURTHER_WORDS = """doll robot cat dog bear rabbit monster animal creature person object thing figure
figurine statue sticker drawing art image portrait groot plant tree character sepia style black gray gold
silver this that their his her or and two three happy sad old new""".split()


def corpus(count: int = 20_000) -> list[str]:
    """Captions of the world in training's proportions, with the further words strewn in often."""
    rng = np.random.default_rng(11)
    names = list(named_toys())
    sentences = [
        caption(sample_drawing(rng), rng, names[n % len(names)] if n % 4 == 0 else None)[0]
        for n in range(count)
    ]
    return sentences + [" ".join(_FURTHER_WORDS)] * 200


def build_tokenizer(folder: Path) -> None:
    """Learn the merges and save the tokenizer in CLIP's form to `folder`.

    With it are kept the words of captions that are no toy's name: only they mean the same for any toy.
    """
    sentences = corpus()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _learn_merges(sentences, alphabet)
    ends = [letter + "</w>" for letter in alphabet]
    pieces = [*alphabet, *ends, *map("".join, merges), _BEGIN, _END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    words = {word for sentence in sentences for word in re.findall("[a-z]+", sentence.lower())}
    common = {CAPTION_WORDS: sorted(words - named_toys().keys())}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH, **common)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for older libraries


def _learn_merges(sentences: list[str], alphabet: list[str]) -> list[tuple[str, str]]:
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    # CLIPTokenizer's own way of cutting a sentence into words, then bytes.
    clip = CLIPTokenizer(vocab={_BEGIN: 0, _END: 1}, merges=[])
    learner.pre_tokenizer = clip.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=4_000,
        min_frequency=2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(sentences, trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


# The autoencoders.
LATENT_CHANNELS, LATENT_SIDE = 4, 16
LATENT_DEVIATION = 0.08
BATCH = 16  # pictures that are encoded or decoded at once
_LEAST_NOISE, _MOST_NOISE = 0.03, 0.15  # deviation; the UNet leaves about as much in what it makes


def new_autoencoder(
    widths: tuple[int, ...] = (24, 48, 64), side: int = PICTURE_SIDE, scaling_factor: float = 1.0
) -> AutoencoderKL:
    """An untrained AutoencoderKL whose posterior has a fixed, small deviation."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=side,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
    )
    return with_fixed_deviation(vae)


@torch.no_grad()
def with_fixed_deviation(vae: AutoencoderKL) -> AutoencoderKL:
    """Set the posterior's deviation: the second half of the moments is the logarithm of the variance."""
    vae.quant_conv.weight[LATENT_CHANNELS:] = 0
    vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * np.log(LATENT_DEVIATION)
    return vae


def train_autoencoder(pixels: np.ndarray, folder: Path, device: torch.device, plan: Plan) -> AutoencoderKL:
    """Train on drawings (N, 64, 64, 3) uint8; set the scaling factor so that latents have deviation 1."""
    torch.manual_seed(0)
    vae = new_autoencoder().to(device, memory_format=torch.channels_last).train()

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=draw).numpy()
        images = to_tensor(pixels[chosen], device)
        with autocast(device):
            means = vae.encode(images).latent_dist.mean
            noise = torch.randn(means.shape, generator=draw).to(device)
            rebuilt = vae.decode(means + LATENT_DEVIATION * noise).sample
        return _difference(rebuilt.float() - images) + 2e-4 * means.float().square().mean()

    vae = with_fixed_deviation(fit(plan, vae, loss_of, folder))
    means = encode(vae, to_tensor(pixels[:2000]), device, batch=BATCH).mean
    vae.register_to_config(scaling_factor=1 / means.std().item())
    return vae


def train_sharp_autoencoder(
    shards: list[Path], teacher: AutoencoderKL, folder: Path, device: torch.device, plan: Plan
) -> AutoencoderKL:
    """Train the autoencoder that ships on the latents of the one that the UNet was trained with.

    Its encoder learns to make of a picture at 128 pixels what `teacher` makes of the same picture at 64. Its
    decoder learns to draw the 128 pixels: for one half of the pictures from its own encoder's latents, for
    the other from the teacher's with noise on them, as the UNet leaves it.

    Args:
        shards: pictures of both sizes, as `draw_sharp` draws them.
        folder: for the checkpoint.
    """
    small = [
        encode(teacher, to_tensor(np.load(shard)["pixels"]), device, batch=BATCH).mean for shard in shards
    ]
    latents = torch.cat(small).cpu() / teacher.config.scaling_factor
    pixels = load(shards, "sharp")
    torch.manual_seed(0)
    # A fourth level halves the larger pictures once more: (N, 3, 128, 128) becomes (N, 4, 16, 16), too.
    vae = new_autoencoder((24, 48, 96, 128), SHARP_SIDE, teacher.config.scaling_factor)
    vae.to(device, memory_format=torch.channels_last).train()
    for part in (vae.encoder, vae.decoder):
        compile_where_it_pays(part, plan.steps)

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        chosen = torch.randint(len(pixels), (plan.batch,), generator=draw)
        noise = _noise(plan.batch, draw).to(device)
        return _sharp_loss(vae, to_tensor(pixels[chosen.numpy()], device), latents[chosen].to(device), noise)

    return with_fixed_deviation(fit(plan, vae, loss_of, folder))


def _noise(count: int, draw: torch.Generator) -> torch.Tensor:
    """(N, 4, 16, 16): the least in the first half, in the second up to the most, which is seldom."""
    more = torch.rand(count, generator=draw).square() * (_MOST_NOISE - _LEAST_NOISE)
    more[: count // 2] = 0
    noise = torch.randn(count, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=draw)
    return (_LEAST_NOISE + more)[:, None, None, None] * noise


def _sharp_loss(vae, images: torch.Tensor, known: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """How far off the rebuilt images are, in values and in lines, and how far the latents from `known`."""
    half = len(images) // 2
    with autocast(images.device):
        means = vae.encode(images).latent_dist.mean.float()
        given = torch.cat([means[:half], known[half:]]) + noise
        rebuilt = vae.decode(given.contiguous(memory_format=torch.channels_last)).sample
    off = rebuilt.float() - images
    lines = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
    return _difference(off) + 0.15 * lines + (means - known).square().mean()


def _difference(difference: torch.Tensor) -> torch.Tensor:
    """Squared error, and some absolute error for crisp lines."""
    return difference.square().mean() + 0.1 * difference.abs().mean()


def encode_shards(shards: list[Path], vae: AutoencoderKL, device: torch.device) -> list[Path]:
    """Encode every drawing once: a file beside each shard, `latents` (N, 4, 16, 16), scaled, and `ids`."""

    def encoded(drawn: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        latents = encode(vae, to_tensor(drawn["pixels"]), device, batch=BATCH).mean.cpu()
        return {"latents": latents.half().numpy(), "ids": drawn["ids"]}

    return _made_beside(shards, "latents", vae.encoder, encoded)


def make_round_trips(shards: list[Path], vae: AutoencoderKL, device: torch.device) -> list[Path]:
    """Rebuild every drawing of the judge's shards once: `pixels` and `labels` in a file beside each."""

    def rebuilt(drawn: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        latents = encode(vae, to_tensor(drawn["pixels"]), device, batch=BATCH).mean
        images = [np.asarray(to_image(one)) for one in decode(vae, latents, device, batch=BATCH)]
        return {"pixels": np.array(images), "labels": drawn["labels"]}

    return _made_beside(shards, "round trips", vae, rebuilt)


def _made_beside(shards: list[Path], what: str, part: nn.Module, make: Callable) -> list[Path]:
    """A file beside each shard, which `make` makes once of what it holds.

    The files' names hold a hash of the part's weights: what was made with others is not taken for it.
    """
    weights = b"".join(value.float().cpu().numpy().tobytes() for value in part.state_dict().values())
    kind = f"{what.replace(' ', '-')}-{hashlib.sha256(weights).hexdigest()[:8]}"
    paths = [shard.with_name(f"{kind}-{shard.name}") for shard in shards]
    for shard, path in zip(tqdm(shards, desc=what, unit="shard"), paths, strict=True):
        if not path.exists():
            save_whole(path, **make(np.load(shard)))
    return paths


# Text encoder and UNet, trained together from nothing on latents and captions.
_WIDTH = 128
_EMPTY_FRACTION = 0.1
_SNR_CEILING = 5.0


def new_scheduler() -> DDPMScheduler:
    """Stable Diffusion's noise schedule; the network predicts velocity, as Stable Diffusion 2.1's does."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        steps_offset=1,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIPTextModel of width 128 and three layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def new_unet() -> UNet2DConditionModel:
    """An untrained UNet2DConditionModel for latents of 4 x 16 x 16."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def train_diffusion(
    latent_files: list[Path],
    tokenizer: CLIPTokenizer,
    scaling_factor: float,
    start: nn.ModuleDict | None,
    folder: Path,
    device: torch.device,
    plan: Plan,
) -> nn.ModuleDict:
    """Train `text_encoder` and `unet` on the latents, and return their averaged weights.

    Args:
        latent_files: what `encode_shards` made.
        scaling_factor: the autoencoder's, to draw from its posterior.
        start: the averaged weights of the session before, or None to begin from nothing.
    """
    latents = torch.from_numpy(load(latent_files, "latents"))
    ids = torch.from_numpy(load(latent_files, "ids"))
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids)
    torch.manual_seed(0)
    model = start or nn.ModuleDict({"text_encoder": new_text_encoder(tokenizer), "unet": new_unet()})
    model.to(device, memory_format=torch.channels_last).train()
    compile_where_it_pays(model["unet"], plan.steps)
    scheduler = new_scheduler()

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        chosen = torch.randint(len(latents), (plan.batch,), generator=draw)
        sentences = ids[chosen, torch.randint(ids.shape[1], (plan.batch,), generator=draw)].long()
        sentences[torch.rand(plan.batch, generator=draw) < _EMPTY_FRACTION] = empty
        clean = latents[chosen].float()
        clean = clean + scaling_factor * LATENT_DEVIATION * torch.randn(clean.shape, generator=draw)
        noise = torch.randn(clean.shape, generator=draw)
        timesteps = _spread_timesteps(plan.batch, scheduler.config.num_train_timesteps, draw)
        return _loss(model, scheduler, clean, noise, timesteps, sentences, device)

    with sdpa_kernel(attention_backends(device)):
        return fit(plan, model, loss_of, folder)


def _spread_timesteps(count: int, number: int, draw: torch.Generator) -> torch.Tensor:
    """One timestep from each of `count` equal stretches: a steadier loss than free draws."""
    spread = (torch.arange(count) + torch.rand(count, generator=draw)) * number / count
    return spread.long().clamp(max=number - 1)  # float32 may round the last one up


def _loss(model, scheduler, clean, noise, timesteps, sentences, device) -> torch.Tensor:
    noisy = scheduler.add_noise(clean, noise, timesteps).to(device)
    target = scheduler.get_velocity(clean, noise, timesteps).to(device)
    with autocast(device):
        states = model["text_encoder"](sentences.to(device))[0]
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        predicted = model["unet"](noisy, timesteps.to(device), states).sample.float()
    errors = (predicted - target).square().mean((1, 2, 3))
    return (errors * _weights(scheduler, timesteps).to(device)).mean()


def _weights(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Full weight where noise prevails, less for the almost clean.

    After Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556), for velocity: the weight of the error of
    the picture is SNR + 1, and is held at gamma + 1.
    """
    signal = scheduler.alphas_cumprod[timesteps]
    snr = signal / (1 - signal)
    return (snr + 1).clamp(max=_SNR_CEILING + 1) / (snr + 1)
