"""The diffusion model: text encoder and UNet, trained together from nothing on latents and captions."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn.attention import sdpa_kernel
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..model.vae import encode
from .autoencoder import BATCH, LATENT_CHANNELS, LATENT_DEVIATION, LATENT_SIDE, fingerprint
from .fit import Plan, attention_backends, autocast, compile_where_it_pays, fit, generator_of
from .pictures import save_whole, to_tensor

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


def encode_shards(shards: list[Path], vae: AutoencoderKL, device: torch.device) -> list[Path]:
    """Encode every drawing once: a file beside each shard, `latents` (N, 4, 16, 16), scaled, and `ids`.

    The file's name holds a fingerprint of the encoder, so that another one's latents are not taken for its.
    """
    weights = fingerprint(vae.encoder)
    paths = [shard.with_name(f"latents-{weights}-{shard.name}") for shard in shards]
    for shard, path in zip(tqdm(shards, desc="latents", unit="shard"), paths, strict=True):
        if path.exists():
            continue
        data = np.load(shard)
        latents = encode(vae, to_tensor(data["pixels"]), device, batch=BATCH).mean.cpu()
        save_whole(path, latents=latents.half().numpy(), ids=data["ids"])
    return paths


def train_diffusion(
    latent_files: list[Path], tokenizer: CLIPTokenizer, scaling_factor: float, start: nn.ModuleDict | None,
    plan: Plan, folder: Path, device: torch.device,
) -> nn.ModuleDict:  # fmt: skip
    """Train `text_encoder` and `unet` on the latents, and return their averaged weights.

    Args:
        latent_files: what `encode_shards` made.
        scaling_factor: the autoencoder's, to draw from its posterior.
        start: the averaged weights of the session before, or None to begin from nothing.
    """
    files = [np.load(path) for path in latent_files]
    latents = torch.from_numpy(np.concatenate([file["latents"] for file in files]))
    ids = torch.from_numpy(np.concatenate([file["ids"] for file in files]))
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
