"""The parts of the miniature and their training: tokenizer, two autoencoders, text encoder, UNet, judge.

The small autoencoder, whose latents the UNet learns, takes pictures of 64 x 64; the sharp one, which ships,
128 x 128. Both have the same latents, 4 x 16 x 16: training is fast on small pictures, and the UNet's output
can be decoded by either.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..model.tokens import CAPTION_WORDS
from ..model.vae import encode
from .drawing import PICTURE_SIDE, SHARP_SIDE
from .fit import Plan, device, fit
from .judge import Judge
from .world import ATTRIBUTES, UNREADABLE, caption, named_toys, sample_drawing

# The tokenizer: CLIP's byte-pair encoding, learned on captions. Every word of the world is one token; other
# text is split into pieces, down to single bytes.
MAX_LENGTH = 48  # tokens of a prompt, including those of its start and end
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
# Words that are in no caption, but that a person may use.
_EXTRA_WORDS = """doll robot cat dog bear rabbit monster animal creature person object thing figure
figurine statue sticker drawing art image portrait groot plant tree character sepia style black gray gold
silver this that their his her or and two three happy sad old new""".split()


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with merges learned on random captions.

    Its configuration has the words of captions except for toys' names, which mean one toy only.
    """
    rng, names = np.random.default_rng(11), list(named_toys())
    sentences = [
        caption(sample_drawing(rng), rng, names[n % len(names)] if n % 4 == 0 else None)[0]
        for n in range(20_000)
    ] + [" ".join(_EXTRA_WORDS)] * 200
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _learn_merges(sentences, alphabet)
    ends = [letter + "</w>" for letter in alphabet]
    pieces = [*alphabet, *ends, *map("".join, merges), _BEGIN, _END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    words = {word for sentence in sentences for word in re.findall("[a-z]+", sentence.lower())}
    common = {CAPTION_WORDS: sorted(words - named_toys().keys())}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH, **common)


def _learn_merges(sentences: list[str], alphabet: list[str]) -> list[tuple[str, str]]:
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    # CLIPTokenizer's own splitting into words, then bytes.
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
_LEAST_NOISE, _MOST_NOISE = 0.03, 0.15  # standard deviation, about as in the UNet's output


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in -1..1, on the training device."""
    images = torch.from_numpy(pixels).to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)


def encoded(vae: AutoencoderKL, pixels: np.ndarray) -> torch.Tensor:
    """The scaled means of pictures' latents, (N, 4, 16, 16)."""
    return encode(vae, to_tensor(pixels), device(), batch=BATCH).mean.cpu()


def new_autoencoder(widths: tuple[int, ...], side: int, scaling_factor: float = 1.0) -> AutoencoderKL:
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
    return _with_fixed_deviation(vae)


@torch.no_grad()
def _with_fixed_deviation(vae: AutoencoderKL) -> AutoencoderKL:
    """Fix the posterior's deviation: the second half of the moments is the log variance."""
    vae.quant_conv.weight[LATENT_CHANNELS:] = 0
    vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * np.log(LATENT_DEVIATION)
    return vae


def train_autoencoder(pixels: np.ndarray, plan: Plan, folder: Path) -> AutoencoderKL:
    """Train on drawings (N, 64, 64, 3) uint8; set the scaling factor so that latents have deviation 1."""

    def loss_of(vae: AutoencoderKL, draw: torch.Generator) -> torch.Tensor:
        images = to_tensor(pixels[_random_indices(pixels, plan, draw)])
        means = vae.encode(images).latent_dist.mean
        noise = torch.randn(means.shape, generator=draw).to(device())
        rebuilt = vae.decode(means + LATENT_DEVIATION * noise).sample
        return _reconstruction_loss(rebuilt.float() - images) + 2e-4 * means.float().square().mean()

    vae = fit(plan, lambda: new_autoencoder((24, 48, 64), PICTURE_SIDE), loss_of, folder)
    _with_fixed_deviation(vae).register_to_config(scaling_factor=1 / encoded(vae, pixels[:2000]).std().item())
    return vae


def train_sharp_autoencoder(
    pixels: np.ndarray, latents: torch.Tensor, scaling_factor: float, plan: Plan, folder: Path
) -> AutoencoderKL:
    """Train the autoencoder that ships on pictures (N, 128, 128, 3) uint8 and their latents by the small one.

    Its encoder learns to give the small one's latents, (N, 4, 16, 16), which are scaled by `scaling_factor`.
    Its decoder learns to draw 128 pixels: for one half of the pictures from its own encoder's latents, for
    the other from the small one's with noise, as in the UNet's output.
    """

    def loss_of(vae: AutoencoderKL, draw: torch.Generator) -> torch.Tensor:
        chosen = _random_indices(pixels, plan, draw)
        noise = _noise(plan.batch, draw).to(device())
        known = latents[chosen].to(device()) / scaling_factor
        return _sharp_loss(vae, to_tensor(pixels[chosen]), known, noise)

    def new() -> AutoencoderKL:
        # A fourth level, so that (N, 3, 128, 128) becomes (N, 4, 16, 16), too.
        return new_autoencoder((24, 48, 96, 128), SHARP_SIDE, scaling_factor)

    return _with_fixed_deviation(fit(plan, new, loss_of, folder))


def _random_indices(things: np.ndarray | torch.Tensor, plan: Plan, draw: torch.Generator) -> np.ndarray:
    """Random indices of a batch, (batch,)."""
    return torch.randint(len(things), (plan.batch,), generator=draw).numpy()


def _noise(count: int, draw: torch.Generator) -> torch.Tensor:
    """(N, 4, 16, 16): the least noise in the first half, in the second up to the most, which is rare."""
    more = torch.rand(count, generator=draw).square() * (_MOST_NOISE - _LEAST_NOISE)
    more[: count // 2] = 0
    noise = torch.randn(count, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=draw)
    return (_LEAST_NOISE + more)[:, None, None, None] * noise


def _sharp_loss(vae, images: torch.Tensor, known: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Loss of the reconstruction, of its gradients, and of the latents against `known`."""
    half = len(images) // 2
    means = vae.encode(images).latent_dist.mean.float()
    given = torch.cat([means[:half], known[half:]]) + noise
    rebuilt = vae.decode(given.contiguous(memory_format=torch.channels_last)).sample
    off = rebuilt.float() - images
    lines = off.diff(dim=2).abs().mean() + off.diff(dim=3).abs().mean()
    return _reconstruction_loss(off) + 0.15 * lines + (means - known).square().mean()


def _reconstruction_loss(difference: torch.Tensor) -> torch.Tensor:
    """Squared error, plus some absolute error for sharp lines."""
    return difference.square().mean() + 0.1 * difference.abs().mean()


# Text encoder and UNet, trained together from scratch on latents and captions.
_WIDTH = 128
_EMPTY_FRACTION = 0.1
_MIN_SNR_GAMMA = 5.0


def new_scheduler() -> DDPMScheduler:
    """Stable Diffusion's noise schedule with v-prediction, as in Stable Diffusion 2.1."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        steps_offset=1,
    )


def new_denoiser(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """An untrained `text_encoder` of width 128 and three layers, and `unet` for latents of 4 x 16 x 16."""
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
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
    )
    unet = UNet2DConditionModel(
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
    return nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})


def train_denoiser(
    latents: torch.Tensor,
    ids: torch.Tensor,
    tokenizer: CLIPTokenizer,
    scaling_factor: float,
    start: nn.ModuleDict | None,
    plan: Plan,
    folder: Path,
) -> nn.ModuleDict:
    """Train `text_encoder` and `unet`, and return their averaged weights.

    Args:
        latents: (N, 4, 16, 16), scaled.
        ids: the token ids of their captions, (N, captions, tokens).
        scaling_factor: the autoencoder's, to sample from its posterior.
        start: the averaged weights of the session before; None: start from scratch.
    """
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids)
    scheduler = new_scheduler()

    def loss_of(model: nn.ModuleDict, draw: torch.Generator) -> torch.Tensor:
        chosen = _random_indices(latents, plan, draw)
        sentences = ids[chosen, torch.randint(ids.shape[1], (plan.batch,), generator=draw)].long()
        sentences[torch.rand(plan.batch, generator=draw) < _EMPTY_FRACTION] = empty
        clean = latents[chosen].float()
        clean = clean + scaling_factor * LATENT_DEVIATION * torch.randn(clean.shape, generator=draw)
        noise = torch.randn(clean.shape, generator=draw)
        timesteps = _stratified_timesteps(plan.batch, scheduler.config.num_train_timesteps, draw)
        return _denoising_loss(model, scheduler, clean, noise, timesteps, sentences)

    return fit(plan, lambda: start or new_denoiser(tokenizer), loss_of, folder)


def _stratified_timesteps(count: int, number: int, draw: torch.Generator) -> torch.Tensor:
    """A random timestep from each of `count` equal intervals: less variance than independent ones."""
    spread = (torch.arange(count) + torch.rand(count, generator=draw)) * number / count
    return spread.long().clamp(max=number - 1)  # float32 may round the last one up


def _denoising_loss(model, scheduler, clean, noise, timesteps, sentences) -> torch.Tensor:
    noisy = scheduler.add_noise(clean, noise, timesteps).to(device())
    target = scheduler.get_velocity(clean, noise, timesteps).to(device())
    states = model["text_encoder"](sentences.to(device()))[0]
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    predicted = model["unet"](noisy, timesteps.to(device()), states).sample.float()
    errors = (predicted - target).square().mean((1, 2, 3))
    return (errors * _min_snr_weights(scheduler, timesteps).to(device())).mean()


def _min_snr_weights(scheduler: DDPMScheduler, timesteps: torch.Tensor) -> torch.Tensor:
    """Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556) for velocity: (min(SNR, gamma) + 1) / (SNR + 1)."""
    signal = scheduler.alphas_cumprod[timesteps]
    snr = signal / (1 - signal)
    return (snr + 1).clamp(max=_MIN_SNR_GAMMA + 1) / (snr + 1)


# The judge is trained on drawings and their reconstructions by the autoencoder, never on pictures that the
# model has drawn, so that it does not learn their mistakes.
_MOST_SHIFT = 2  # pixels
_ATTRIBUTE_WEIGHTS = {"pattern": 4.0, "second_color": 4.0}  # these two are learned much later than others


def train_judge(sources: list[tuple[np.ndarray, np.ndarray]], plan: Plan, folder: Path) -> Judge:
    """Train on pictures (N, 64, 64, 3) uint8 from several sources, chosen at random for each step.

    Each source has labels, too: (N, attributes), as from `world.labels_of`.
    """

    def loss_of(judge: Judge, draw: torch.Generator) -> torch.Tensor:
        pictures, labels = sources[torch.randint(len(sources), (), generator=draw)]
        chosen = _random_indices(pictures, plan, draw)
        logits = judge(_shifted(to_tensor(pictures[chosen]), draw))
        truth = torch.from_numpy(labels[chosen]).long().to(device())
        cross_entropy = nn.CrossEntropyLoss(ignore_index=UNREADABLE, label_smoothing=0.02)
        return sum(
            _ATTRIBUTE_WEIGHTS.get(name, 1.0) * cross_entropy(logits[name].float(), truth[:, column])
            for column, name in enumerate(ATTRIBUTES)
        )

    return fit(plan, Judge, loss_of, folder)


def _shifted(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Augmentation: the batch shifted by up to two pixels, with replicated edges."""
    top, left = torch.randint(2 * _MOST_SHIFT + 1, (2,), generator=draw).tolist()
    wide = functional.pad(images, (_MOST_SHIFT,) * 4, mode="replicate")
    moved = wide[:, :, top : top + PICTURE_SIDE, left : left + PICTURE_SIDE]
    return moved.contiguous(memory_format=torch.channels_last)
