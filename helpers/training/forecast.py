"""What a training will need on this machine, before it starts: memory by counting, time by earlier runs.

Nothing here reads weights or touches a GPU: a notebook asks before the launch.
"""

import copy
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import psutil
import torch
from accelerate.utils import is_cuda_available
from torch import nn

from ..common.files import read_json, write_json
from ..concept.concept import Concept, TrainingSettings, settings_where
from ..dataset.dataset import (
    checked_ids,
    held_out_templates,
    tokenizers_with_word,
    training_templates,
    with_captions,
)
from ..dataset.images import captions_of, image_paths
from ..model.base_model import Components, load_shapes
from ..model.machine import CPU_INFO, diffusers, pick_dtype
from .records import read_log, steps_per_second

GIB = 2**30
WORDS_AT_ONCE = 4  # of a run of many, in one forward pass: more words take more time, not more memory
_BYTES_PER_WEIGHT = {"no": None, "8bit": 1, "4bit": 0.53}  # NF4: half a byte, and a scale for 64 weights
_REMEDIES = {"gradient_checkpointing": True, "train_batch_size": 1, "quantize": "4bit"}
_CIRCUMSTANCES_FILE = "circumstances.json"


def training_plan(concept: Concept) -> str:
    """Pictures, steps, batch and how often each picture will be seen, as lines to print.

    Raises:
        UserError: the concept has no pictures, or the model would not read a sentence to its word.
    """
    settings, pictures = concept.training, len(image_paths(concept))
    templates, _ = with_captions(concept, training_templates(concept))
    checked_ids(concept, tokenizers_with_word(concept), templates)
    batch = settings.train_batch_size * settings.gradient_accumulation_steps * settings.num_processes
    samples = batch * settings.max_train_steps
    evaluations = settings.max_train_steps // settings.evaluate_every
    captioned = len(captions_of(concept))
    end = "or fewer, when the fixed loss stops falling" if settings.stop_when_learned else "exactly"
    return "\n".join(
        [
            f"{pictures} pictures, {len(training_templates(concept))} sentences to train with, "
            f"{len(held_out_templates(concept))} kept back to judge by",
            *([f"{captioned} of the pictures with captions of their own instead"] if captioned else []),
            f"{settings.max_train_steps} steps ({end}) x {batch} pictures a step = {samples} pictures",
            f"each picture {samples / pictures:.0f} times, each time with other noise",
            f"{evaluations} looks at the fixed loss, {settings.max_train_steps // settings.checkpoint_every} "
            "checkpoints to choose the best from",
        ]
    )


def estimate(concept: Concept) -> str:
    """Memory and time of the concept's training here, in two or more sentences.

    Raises:
        UserError: the base model can't be read, or this machine can't compute in the format asked for.
    """
    machine = this_machine()
    dtype = machine.dtype(concept.training.mixed_precision)
    return f"{memory_advice(concept, dtype, machine.memory, f'on {machine.name}')} {_time(concept)}"


def _time(concept: Concept) -> str:
    per_step = seconds_per_step(concept)
    if per_step is None:
        return "Time: not known before the first such run on this machine; the run says it as it starts."
    time = in_time(concept.training.max_train_steps * per_step)
    return f"Time: at most {time}, {per_step:.2g} s a step, as in the last such run here."


def in_time(seconds: float) -> str:
    """`40 seconds`, `2.5 minutes`."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def memory_advice(
    concept: Concept, dtype: torch.dtype, available: int | None, where: str, words: int = 1
) -> str:
    """What a step takes, in a sentence; where that is too much, what each remedy would bring it to.

    Args:
        available: bytes; None where that is not known.
        where: they are, for example `on Tesla T4`.
        words: how many are trained in one run.
    """
    needed = _memory_of(concept, dtype, words)
    of = f" of {available / GIB:.1f}" if available else ""
    sentence = (
        f"Memory: about {needed.total / GIB:.2f}{of} GiB {where}: {needed.weights / GIB:.2f} for the frozen "
        f"weights, {needed.activations / GIB:.2f} for one step's activations."
    )
    if not available or needed.total <= available:
        return sentence
    remedies = []
    for name, value in _REMEDIES.items():
        if getattr(concept.training, name) != value:
            total = _memory_of(concept.changed(training={name: value}), dtype, words).total
            remedies.append(f"{name}={value!r} ({total / GIB:.2f} GiB)")
    return f"{sentence} That is more than there is. Should it fail, set {' or '.join(remedies)}."


def _memory_of(concept: Concept, dtype: torch.dtype, words: int) -> "Memory":
    counted = tuple((name, getattr(concept.training, name)) for name in settings_where(memory=True))
    return _memory_counted(concept.base_model, dtype, counted, words)


@lru_cache(maxsize=32)
def _memory_counted(
    base_model: str, dtype: torch.dtype, counted: tuple[tuple[str, Any], ...], words: int
) -> "Memory":
    """Kept, since a form asks at each key, and the run itself once more."""
    shapes, settings = load_shapes(base_model, dtype), TrainingSettings(**dict(counted))
    return memory_needed(shapes, settings, settings.resolution or shapes.resolution, dtype, words)


def note_circumstances(concept: Concept) -> None:
    """Write down what the speed of this run depends on, so that its log tells the time of a later one."""
    write_json(concept.training_folder / _CIRCUMSTANCES_FILE, _circumstances(concept))


def seconds_per_step(concept: Concept) -> float | None:
    """Of the newest run of any concept under the same circumstances; None where there was none."""
    noted = concept.folder.parent.glob(f"*/training/{_CIRCUMSTANCES_FILE}")
    for path in sorted(noted, key=lambda path: path.stat().st_mtime, reverse=True):
        if read_json(path) == _circumstances(concept):
            lines = read_log(path.parent)
            while lines and "event" in lines[-1]:  # how it ended
                lines.pop()
            if rate := steps_per_second(lines):
                return 1 / rate
    return None


def _circumstances(concept: Concept) -> dict[str, Any]:
    settings = concept.training.model_dump(mode="json")
    speed = {name: settings[name] for name in settings_where(speed=True)}
    return {"machine": this_machine().name, "base_model": concept.base_model, **speed}


@dataclass(frozen=True)
class Machine:
    """Where a training launched from here would run.

    Attributes:
        name: the GPU's, or the processor's with its cores; two of one name are taken for equally fast.
        memory: bytes that it has, whether free or not; None where that can't be found out.
        capability: an NVIDIA GPU's compute capability, 0 where it is not known; None on a processor.
    """

    name: str
    memory: int | None
    capability: float | None = None

    def dtype(self, mixed_precision: str) -> torch.dtype:
        """The format that training would choose here.

        Raises:
            UserError: this machine can't compute in the format that was asked for.
        """
        if self.capability is not None and mixed_precision in ("auto", "fp16"):
            has_bfloat16 = self.capability >= 8
            return torch.bfloat16 if mixed_precision == "auto" and has_bfloat16 else torch.float16
        return pick_dtype(mixed_precision, "cpu")


@cache
def this_machine() -> Machine:
    """Ask the driver's own program, `nvidia-smi`, for the first GPU that is visible; else the processor."""
    if not is_cuda_available():
        name = f"{os.cpu_count()} processor cores ({_processor()})"
        return Machine(name, psutil.virtual_memory().total)
    name, *numbers = _nvidia_smi().split(", ")
    if len(numbers) != 2 or not numbers[0].isdigit():  # a driver that gives no answer
        return Machine("a GPU", None, 0)
    return Machine(name, int(numbers[0]) * 2**20, float(numbers[1]))


def _processor() -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _nvidia_smi() -> str:
    """A line such as `NVIDIA T4, 15360, 7.5`, or nothing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    asked = ["--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    command = ["nvidia-smi", *asked, *([f"--id={visible}"] if visible else [])]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.strip().split("\n")[0]


# Memory, counted from the model's shapes.


@dataclass(frozen=True)
class Memory:
    """Bytes on the device while a step is taken; CUDA's own context comes on top."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


def memory_needed(
    components: Components, settings: TrainingSettings, resolution: int, dtype: torch.dtype, words: int = 1
) -> Memory:
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
    return Memory(weights, activations)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _unet_bytes(unet: nn.Module, quantize: str) -> int:
    linear = [module.weight for module in unet.modules() if isinstance(module, nn.Linear)]
    kept = _BYTES_PER_WEIGHT[quantize]
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
    everything = saved_bytes(unet, lambda: unet(latents, timesteps, states, added_cond_kwargs=added))
    if not checkpointing:
        return everything
    unet.enable_gradient_checkpointing()
    kept = saved_bytes(unet, lambda: unet(latents, timesteps, states, added_cond_kwargs=added))
    blocks = len(unet.down_blocks) + 1 + len(unet.up_blocks)
    return kept + everything // blocks  # one block at a time is computed again


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
