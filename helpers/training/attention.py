"""What computes attention: torch's fused kernels, or plain matrix products where these are quicker."""

import torch

from ..base_model import Components
from .memory import latent_side

FEW_TOKENS = 256


def choose_attention(
    components: Components, resolution: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Plain products for few tokens in bfloat16 on a CPU; anywhere else SDPA, as the libraries have it.

    There the backward pass of torch's fused attention is slow. With many tokens the products would take
    much memory: a picture of `resolution` pixels has a token for each of its latents.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return
    for text_encoder in components.text_encoders:
        text_encoder.set_attn_implementation("eager")
    if latent_side(components, resolution) ** 2 <= FEW_TOKENS:
        from diffusers.models.attention_processor import AttnProcessor

        components.unet.set_attn_processor(AttnProcessor())
