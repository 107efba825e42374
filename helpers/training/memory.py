"""How much memory a run will take, worked out before it takes it."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from ..concept.concept import TrainingSettings
from ..model.base_model import Components
from ..model.libraries import diffusers

GIB = 2**30
WORDS_AT_ONCE = 4  # of a run of many, in one forward pass: more words take more time, not more memory
_BYTES_A_WEIGHT = {"no": None, "8bit": 1, "4bit": 0.53}  # NF4: half a byte, and a scale for 64 weights


@dataclass(frozen=True)
class Forecast:
    """Bytes on the device while a step is taken; CUDA's own context comes on top."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def __str__(self) -> str:
        return (
            f"about {self.total / GIB:.2f} GiB of memory: {self.weights / GIB:.2f} for the frozen weights, "
            f"{self.activations / GIB:.2f} for one step's activations"
        )


def forecast(
    components: Components, settings: TrainingSettings, resolution: int, dtype: torch.dtype, words: int = 1
) -> Forecast:
    """Count weights, and run one forward pass on torch's `meta` device, which holds shapes and no numbers.

    Args:
        words: how many are trained in one run.
    """
    weights = sum(_weight_bytes(encoder) for encoder in components.text_encoders)
    weights += _unet_bytes(components.unet, settings.quantize)
    weights += _weight_bytes(components.vae) if settings.random_crop else 0
    samples = settings.train_batch_size * settings.timesteps_per_picture * min(words, WORDS_AT_ONCE)
    activations = sum(_encoder_activations(encoder, samples) for encoder in components.text_encoders)
    activations += _unet_activations(components, samples, resolution, dtype, settings.gradient_checkpointing)
    return Forecast(weights, activations)


def advice(
    components: Components,
    settings: TrainingSettings,
    resolution: int,
    dtype: torch.dtype,
    device: torch.device,
    words: int = 1,
) -> str:
    """The forecast as a sentence, and where it is more than is free, what each remedy would come to."""
    expected, free = forecast(components, settings, resolution, dtype, words), free_memory(device)
    sentence = f"It expects to take {expected}."
    if expected.total <= free:
        return sentence
    remedies = "; ".join(
        f"{name}={value!r} ({forecast(components, changed, resolution, dtype, words).total / GIB:.2f} GiB)"
        for name, value, changed in _remedies(settings)
    )
    return f"{sentence} Only {free / GIB:.2f} GiB are free. Should it fail, switch on: {remedies}."


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _remedies(settings: TrainingSettings) -> Iterable[tuple[str, object, TrainingSettings]]:
    for name, value in (("gradient_checkpointing", True), ("train_batch_size", 1), ("quantize", "4bit")):
        if getattr(settings, name) != value:
            yield name, value, settings.model_copy(update={name: value})


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _unet_bytes(unet: nn.Module, quantize: str) -> int:
    linear = [module.weight for module in unet.modules() if isinstance(module, nn.Linear)]
    kept = _BYTES_A_WEIGHT[quantize]
    saved = sum(weight.nbytes - weight.numel() * kept for weight in linear) if kept else 0
    return int(_weight_bytes(unet) - saved)


def _encoder_activations(encoder: nn.Module, samples: int) -> int:
    with torch.device("meta"):
        empty = type(encoder)(copy.deepcopy(encoder.config))
        ids = torch.zeros(samples, encoder.config.max_position_embeddings, dtype=torch.long)
    empty.to(encoder.dtype).requires_grad_(False).eval()
    empty.get_input_embeddings().weight.requires_grad_(True)
    return saved_bytes(empty, lambda: empty(ids))


def _unet_activations(
    components: Components, samples: int, resolution: int, dtype: torch.dtype, checkpointing: bool
) -> int:
    config, side = components.unet.config, latent_side(components, resolution)
    with torch.device("meta"):
        unet = diffusers().UNet2DConditionModel.from_config(config)
        latents = torch.zeros(samples, config.in_channels, side, side, dtype=dtype)
        timesteps = torch.zeros(samples, dtype=torch.long)
        states = torch.zeros(samples, 77, config.cross_attention_dim, dtype=dtype, requires_grad=True)
        added = _added_conditioning(components, samples, dtype)
    nn.Module.to(unet, dtype)  # diffusers' own `to` warns of parts to keep in float32 where there are none
    unet.requires_grad_(False).eval()
    whole = saved_bytes(unet, lambda: unet(latents, timesteps, states, added_cond_kwargs=added))
    if not checkpointing:
        return whole
    unet.enable_gradient_checkpointing()
    kept = saved_bytes(unet, lambda: unet(latents, timesteps, states, added_cond_kwargs=added))
    blocks = len(unet.down_blocks) + 1 + len(unet.up_blocks)
    return kept + whole // blocks  # one block at a time is computed again


def _added_conditioning(components: Components, samples: int, dtype: torch.dtype) -> dict | None:
    if components.family != "sdxl":
        return None
    pooled = torch.zeros(samples, components.text_encoders[-1].config.projection_dim, dtype=dtype)
    return {"text_embeds": pooled, "time_ids": torch.zeros(samples, 6, dtype=dtype)}


def latent_side(components: Components, resolution: int) -> int:
    """Side of the latents of a picture of `resolution` pixels."""
    return resolution // 2 ** (len(components.vae.config.block_out_channels) - 1)


def saved_bytes(module: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the backward pass, without the module's own weights."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            kept[id(base)] = base  # held, so that its id is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    total = sum(tensor.nbytes for tensor in kept.values())
    del output
    return total
