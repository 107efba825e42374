"""The frozen base model on its device, as training uses it."""

import shutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..common.errors import UserError
from ..concept.concept import Concept
from ..model.base_model import MINIATURE, Components, load_components
from ..model.machine import bitsandbytes, pick_dtype, quiet_loading
from .step import squared_errors, target_of

_COMPILERS = ("g++", "clang++", "cl")


@dataclass
class Model:
    """A base model as a training step sees it: sentences in, predictions out.

    Attributes:
        components: the parts, with UNet and text encoder(s) on `device` in `dtype`. The VAE is in float32,
            since XL's overflows in float16, and on the CPU while it isn't used.
        dtype: number format of the frozen weights; held in it, they need no autocast.
        resolution: side of the training pictures in pixels.
    """

    components: Components
    device: torch.device
    dtype: torch.dtype
    resolution: int

    @property
    def scheduler(self) -> Any:
        return self.components.scheduler

    @property
    def unet(self) -> Any:
        return self.components.unet

    @property
    def vae(self) -> Any:
        return self.components.vae

    def embed(self, input_ids: list[torch.Tensor]) -> dict[str, Any]:
        """Token ids, (batch, length) for each text encoder, to the UNet's conditioning arguments."""
        if self.components.family == "sdxl":
            return _embed_two(self, input_ids)
        return {"encoder_hidden_states": self.components.text_encoders[0](input_ids[0])[0]}  # the last layer

    def predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, conditioning: dict) -> torch.Tensor:
        """The UNet's prediction for noisy latents (batch, channels, height, width), in float32."""
        noisy = noisy.to(self.dtype, memory_format=torch.channels_last)
        return self.unet(noisy, timesteps, **conditioning).sample.float()

    def errors(
        self,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        input_ids: list[torch.Tensor],
    ) -> torch.Tensor:
        """The squared error of the prediction for each latent, noised and with its sentence, (batch,)."""
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prediction = self.predict(noisy, timesteps, self.embed(input_ids))
        return squared_errors(prediction, target_of(self.scheduler, latents, noise, timesteps))


def load_model(concept: Concept, device: torch.device) -> Model:
    """Load the concept's base model, frozen, with UNet and text encoder(s) on the device.

    Raises:
        UserError: it can't be loaded, or not in the number format; or there is no compiler for `compile`.
    """
    settings = concept.training
    if settings.compile and not any(map(shutil.which, _COMPILERS)):
        raise UserError(
            "compile needs a C++ compiler, and there is none: install g++, or set compile to False."
        )
    dtype = number_format(concept, device)
    components = load_components(concept.base_model, dtype)
    resolution = settings.resolution or components.resolution
    if dtype != torch.float32:
        components.vae.float()
    if settings.quantize != "no":
        quantize_linears(components.unet, settings.quantize, device)
    components.unet.to(device, memory_format=torch.channels_last)
    for text_encoder in components.text_encoders:
        text_encoder.to(device)
    choose_attention(components, resolution, dtype, device)
    if settings.gradient_checkpointing:
        checkpoint_gradients(components)
    if settings.compile:
        components.unet.compile()
    return Model(components, device, dtype, resolution)


def number_format(concept: Concept, device: torch.device) -> torch.dtype:
    """`pick_dtype`, but float32 for the miniature on a CPU: its small operations gain nothing by bfloat16."""
    wanted = concept.training.mixed_precision
    if wanted == "auto" and device.type == "cpu" and concept.base_model == MINIATURE:
        return torch.float32
    return pick_dtype(wanted, device)


def _embed_two(model: Model, input_ids: list[torch.Tensor]) -> dict[str, Any]:
    """The conditioning of Stable Diffusion XL, as `StableDiffusionXLPipeline.encode_prompt` computes it.

    The last hidden layer but one of both encoders, concatenated; the second one's pooled output; and a size
    conditioning that says “an uncropped picture of this resolution”.
    """
    outputs = [
        text_encoder(ids, output_hidden_states=True)
        for text_encoder, ids in zip(model.components.text_encoders, input_ids, strict=True)
    ]
    pooled = outputs[-1].text_embeds
    side = model.resolution
    time_ids = torch.tensor([side, side, 0, 0, side, side], device=pooled.device, dtype=pooled.dtype)
    return {
        "encoder_hidden_states": torch.cat([output.hidden_states[-2] for output in outputs], dim=-1),
        "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids.expand(len(pooled), 6)},
    }


def checkpoint_gradients(components: Components) -> None:
    """Keep few activations and recompute the others: less memory, a third more time.

    transformers does so only in training mode, which changes nothing else: CLIP has no dropout and no batch
    statistics.
    """
    components.unet.enable_gradient_checkpointing()
    for text_encoder in components.text_encoders:
        with quiet_loading():  # version 6 will call it `activation_checkpointing_enable`
            text_encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        text_encoder.train()


# How attention is computed: by torch's fused kernels, or by plain matrix products where these are faster.
FEW_TOKENS = 256


def choose_attention(
    components: Components, resolution: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Plain products in 16 bit on a CPU, where the backward pass of torch's fused attention is slow.

    Not so in a UNet with many tokens (one per latent pixel), where they would take much memory. Anywhere
    else it is SDPA, the libraries' default.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return
    for text_encoder in components.text_encoders:
        text_encoder.set_attn_implementation("eager")
    if latent_side(components, resolution) ** 2 <= FEW_TOKENS:
        from diffusers.models.attention_processor import AttnProcessor

        components.unet.set_attn_processor(AttnProcessor())


def latent_side(components: Components, resolution: int) -> int:
    """Side of the latents of a picture with `resolution` pixels a side."""
    return resolution // 2 ** (len(components.vae.config.block_out_channels) - 1)


# The frozen UNet in 8 or 4 bit, by bitsandbytes: less memory, but slower and slightly less exact.


def quantize_linears(module: nn.Module, bits: str, device: torch.device) -> None:
    """Replace every `nn.Linear` in a frozen module by one in 8 or 4 bit on the device.

    Args:
        bits: `8bit` (LLM.int8(), Dettmers et al. 2022) or `4bit` (NF4, Dettmers et al. 2023).
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            # In eval mode on a CPU, bitsandbytes packs 4-bit weights for a kernel that has no gradient.
            # Otherwise the mode makes no difference to a linear layer.
            setattr(module, name, _quantized(child, bits).to(device).train())
        else:
            quantize_linears(child, bits, device)


def _quantized(linear: nn.Linear, bits: str) -> nn.Module:
    bnb = bitsandbytes()
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    if bits == "8bit":
        layer = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False, threshold=6.0)
        layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    else:
        layer = bnb.nn.LinearNF4(*shape, compute_dtype=linear.weight.dtype)
        nf4 = {"requires_grad": False, "quant_type": "nf4", "module": layer}
        layer.weight = bnb.nn.Params4bit(linear.weight.data, **nf4)
    layer.bias = linear.bias
    return layer
