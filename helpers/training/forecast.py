"""What a training run will need on this machine: memory counted from shapes, time known from earlier runs.

Nothing here reads weights. Only `memory_of_run` touches a GPU: a notebook asks the others before the launch.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, NamedTuple

import psutil
import torch
from accelerate.utils import is_cuda_available
from torch import nn

from ..common.files import read_json, write_json
from ..common.sheets import counted
from ..concept.concept import Concept, TrainingSettings, settings_where
from ..dataset.dataset import (
    checked_ids,
    held_out_templates,
    tokenizers_with_word,
    training_templates,
    with_captions,
)
from ..dataset.images import captions_of, image_paths
from ..model.base_model import load_shapes
from ..model.machine import CPU_INFO
from .learner import WORDS_AT_ONCE
from .model import Model, checkpoint_gradients, latent_side, number_format
from .records import modified_at, read_log, steps_per_second

GIB = 2**30
_BYTES_PER_WEIGHT = {"8bit": 1, "4bit": 0.53}  # NF4: half a byte, and a scale for every 64 weights
_REMEDIES = {"gradient_checkpointing": True, "train_batch_size": 1, "quantize": "4bit"}
_CIRCUMSTANCES_FILE = "circumstances.json"


def training_plan(concept: Concept) -> str:
    """Pictures, steps, batch, and how often each picture will be seen, as lines to print.

    Raises:
        UserError: the concept has no pictures, or a sentence is cut off before the word.
    """
    settings, pictures = concept.training, len(image_paths(concept))
    templates, captioned = training_templates(concept), len(captions_of(concept))
    checked_ids(concept, tokenizers_with_word(concept), with_captions(concept, templates)[0])
    batch = settings.train_batch_size * settings.gradient_accumulation_steps * settings.num_processes
    samples = batch * settings.max_train_steps
    # The last step, too, is looked at and kept.
    evaluations = -(-settings.max_train_steps // settings.evaluate_every)
    checkpoints = -(-settings.max_train_steps // settings.checkpoint_every)
    end = "or fewer, when the fixed loss stops falling" if settings.stop_when_learned else "exactly"
    steps = f"{counted(settings.max_train_steps, 'step')} ({end})"
    looks, kept = counted(evaluations, "look"), counted(checkpoints, "checkpoint")
    return "\n".join(
        [
            f"{counted(pictures, 'picture')}, {len(templates)} sentences to train with, "
            f"{len(held_out_templates(concept))} kept back to judge by",
            *([f"captions of their own instead for {counted(captioned, 'picture')}"] if captioned else []),
            f"{steps} x {batch} pictures a step = {samples} pictures",
            f"each picture {counted(round(samples / pictures), 'time')}, each time with other noise",
            f"{looks} at the fixed loss, {kept} to choose the best from",
        ]
    )


def estimate(concept: Concept) -> str:
    """Memory and time that training the concept will take on this machine, in two or more sentences.

    Raises:
        UserError: the base model can't be read, or this machine can't compute in the number format.
    """
    machine, memory = this_machine()
    is_half = is_cuda_available() and concept.training.mixed_precision != "no"
    # Both 16-bit formats take the same memory; which one a GPU has is asked in the run, which may touch it.
    dtype = torch.float16 if is_half else number_format(concept, torch.device("cpu"))
    time = "not known before the first such run on this machine; the run says it as it starts"
    if pace := seconds_per_step(concept):
        whole = in_time(concept.training.max_train_steps * pace)
        time = f"at most {whole}, {pace:.2g} s a step, as in the last such run here"
    return f"{memory_advice(concept, dtype, memory, f'on {machine}')} Time: {time}."


@cache
def this_machine() -> tuple[str, int | None]:
    """Name and memory in bytes (None: unknown) of the first visible GPU, else of the processor."""
    if not is_cuda_available():
        lines = CPU_INFO.read_text() if CPU_INFO.is_file() else ""
        model = re.search(r"^model name\s*: (.*)", lines, re.MULTILINE)
        processor = model[1].strip() if model else platform.machine()
        return f"{os.cpu_count()} processor cores ({processor})", psutil.virtual_memory().total
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = f"nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits --id={first}".split()
    with suppress(OSError, subprocess.SubprocessError, ValueError):  # no answer, or an odd one
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        name, mebibytes = answer.split("\n")[0].rsplit(", ", 1)
        return name, int(mebibytes) * 2**20
    return "a GPU", None


# Time: that of the newest run under the same circumstances.


def note_circumstances(concept: Concept) -> None:
    """Write down what the speed of a run depends on, so that its log can tell the time of a later one."""
    write_json(concept.training_folder / _CIRCUMSTANCES_FILE, _circumstances(concept))


def seconds_per_step(concept: Concept) -> float | None:
    """Of the newest run of any concept under the same circumstances; None where there was none."""
    noted = concept.folder.parent.glob(f"*/training/{_CIRCUMSTANCES_FILE}")
    for path in sorted(noted, key=modified_at, reverse=True):
        if read_json(path) == _circumstances(concept):
            lines = read_log(path.parent)
            while lines and "event" in lines[-1]:  # how it ended
                lines.pop()
            if rate := steps_per_second(lines):
                return 1 / rate
    return None


def _circumstances(concept: Concept) -> dict[str, Any]:
    speed = concept.training.model_dump(mode="json", include={*settings_where(speed=True)})
    return {"machine": this_machine()[0], "base_model": concept.base_model, **speed}


def in_time(seconds: float) -> str:
    """`40 seconds`, `2.5 minutes`."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


# Memory, counted from the model's shapes.


class Memory(NamedTuple):
    """Bytes on the device during a step; CUDA's own context comes on top."""

    weights: int
    activations: int


def memory_of_run(concept: Concept, device: torch.device, words: int) -> str:
    """`memory_advice` for a run that begins now, by the memory that is free on its device."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    return memory_advice(concept, number_format(concept, device), free, "that are free", words)


def memory_advice(
    concept: Concept, dtype: torch.dtype, available: int | None, where: str, words: int = 1
) -> str:
    """The memory that a step on several words takes; where there is less, what each remedy reduces it to.

    Args:
        available: bytes; None if unknown.
        where: they are, for example `on Tesla T4`.
    """
    needed = memory_needed(concept, dtype, words)
    of = f" of {available / GIB:.1f}" if available else ""
    sentence = (
        f"Memory: about {sum(needed) / GIB:.2f}{of} GiB {where}: {needed.weights / GIB:.2f} for the frozen "
        f"weights, {needed.activations / GIB:.2f} for one step's activations."
    )
    if not available or sum(needed) <= available:
        return sentence
    remedies = []
    for name, value in _REMEDIES.items():
        if getattr(concept.training, name) != value:
            total = sum(memory_needed(concept.changed(training={name: value}), dtype, words))
            remedies.append(f"set {name}={value!r} ({total / GIB:.2f} GiB)")
    remedies = remedies or ["choose a smaller base model or a lower resolution"]
    return f"{sentence} That is more than there is. Should it fail, {' or '.join(remedies)}."


def memory_needed(concept: Concept, dtype: torch.dtype, words: int = 1) -> Memory:
    """Count the weights, and the activations of a forward pass, on torch's `meta` device: no data."""
    settings = concept.training.model_dump(include={*settings_where(memory=True)})
    return _counted(concept.base_model, dtype, min(words, WORDS_AT_ONCE), **settings)


@lru_cache(maxsize=32)  # a form asks at every key, and the run itself once more
def _counted(base_model: str, dtype: torch.dtype, words: int, **training: Any) -> Memory:
    shapes, settings = load_shapes(base_model, dtype), TrainingSettings(**training)
    networks = nn.ModuleList([shapes.unet, *shapes.text_encoders])
    weights = _bytes(networks) + (_bytes(shapes.vae) if settings.random_crop else 0)
    if short := _BYTES_PER_WEIGHT.get(settings.quantize):
        linear = [part.weight for part in shapes.unet.modules() if isinstance(part, nn.Linear)]
        weights -= int(sum(weight.nbytes - weight.numel() * short for weight in linear))
    for encoder in shapes.text_encoders:  # the new rows are here
        encoder.get_input_embeddings().weight.requires_grad_(True)
    model = Model(shapes, torch.device("meta"), dtype, settings.resolution or shapes.resolution)
    samples = settings.train_batch_size * settings.timesteps_per_picture * words
    activations = saved_bytes(networks, lambda: _forward(model, samples))
    if settings.gradient_checkpointing:
        checkpoint_gradients(shapes)
        blocks = len(shapes.unet.down_blocks) + 1 + len(shapes.unet.up_blocks)
        one_block = activations // blocks  # each is computed again in the backward pass
        activations = one_block + saved_bytes(networks, lambda: _forward(model, samples))
    return Memory(weights, activations)


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _forward(model: Model, samples: int) -> torch.Tensor:
    unet, side = model.unet.config, latent_side(model.components, model.resolution)
    lengths = [encoder.config.max_position_embeddings for encoder in model.components.text_encoders]
    with torch.device("meta"):
        latents = torch.zeros(samples, unet.in_channels, side, side)
        timesteps = torch.zeros(samples, dtype=torch.long)
        sentences = [torch.zeros(samples, length, dtype=torch.long) for length in lengths]
    return model.predict(latents, timesteps, model.embed(sentences))


def saved_bytes(module: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, without the module's own weights."""
    own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        kept[id(base)] = base
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(tensor.nbytes for place, tensor in kept.items() if place not in own)
