"""What a training will need on this machine, before it starts: memory by counting, time by earlier runs.

Nothing here reads weights or touches a GPU, but for `memory_of_run`: a notebook asks before the launch.
"""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

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
from ..model.base_model import load_shapes
from ..model.machine import CPU_INFO
from .learner import WORDS_AT_ONCE
from .model import Model, checkpoint_gradients, latent_side, number_format
from .records import read_log, steps_per_second

GIB = 2**30
_BYTES_PER_WEIGHT = {"no": None, "8bit": 1, "4bit": 0.53}  # NF4: half a byte, and a scale for 64 weights
_REMEDIES = {"gradient_checkpointing": True, "train_batch_size": 1, "quantize": "4bit"}
_CIRCUMSTANCES_FILE = "circumstances.json"


def training_plan(concept: Concept) -> str:
    """Pictures, steps, batch and how often each picture will be seen, as lines to print.

    Raises:
        UserError: the concept has no pictures, or the model would not read a sentence to its word.
    """
    settings, pictures = concept.training, len(image_paths(concept))
    templates = training_templates(concept)
    checked_ids(concept, tokenizers_with_word(concept), with_captions(concept, templates)[0])
    batch = settings.train_batch_size * settings.gradient_accumulation_steps * settings.num_processes
    samples = batch * settings.max_train_steps
    evaluations = settings.max_train_steps // settings.evaluate_every
    captioned = len(captions_of(concept))
    end = "or fewer, when the fixed loss stops falling" if settings.stop_when_learned else "exactly"
    return "\n".join(
        [
            f"{pictures} pictures, {len(templates)} sentences to train with, "
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
    machine, pace = this_machine(), seconds_per_step(concept)
    is_short = machine.is_gpu and concept.training.mixed_precision != "no"
    # A GPU's short formats are of the same size; which one it has is asked in the run, which may touch it.
    dtype = torch.float16 if is_short else number_format(concept, torch.device("cpu"))
    memory = memory_advice(concept, dtype, machine.memory, f"on {machine.name}")
    time = "not known before the first such run on this machine; the run says it as it starts"
    if pace:
        time = f"at most {in_time(concept.training.max_train_steps * pace)}, {pace:.2g} s a step"
        time += ", as in the last such run here"
    return f"{memory} Time: {time}."


def in_time(seconds: float) -> str:
    """`40 seconds`, `2.5 minutes`."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


# The machine that a training launched from here would run on.


class Machine(NamedTuple):
    """Two of one name are taken for equally fast. The memory is in bytes; None where it isn't known."""

    name: str
    memory: int | None
    is_gpu: bool = False


@cache
def this_machine() -> Machine:
    """The first GPU that is visible, by its driver's own program; else the processor."""
    if not is_cuda_available():
        lines = CPU_INFO.read_text() if CPU_INFO.is_file() else ""
        processor = re.search(r"^model name\s*: (.*)", lines, re.MULTILINE)
        named = processor[1].strip() if processor else platform.machine()
        return Machine(f"{os.cpu_count()} processor cores ({named})", psutil.virtual_memory().total)
    name, _, mebibytes = _nvidia_smi().rpartition(", ")
    if not mebibytes.isdigit():  # a driver that gives no answer
        return Machine("a GPU", None, is_gpu=True)
    return Machine(name, int(mebibytes) * 2**20, is_gpu=True)


def _nvidia_smi() -> str:
    """A line such as `Tesla T4, 15360`, or nothing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    asked = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    command = ["nvidia-smi", *asked, *([f"--id={visible}"] if visible else [])]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.strip().split("\n")[0]


# Time: that of the newest run of any concept that was like this one.


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
    speed = concept.training.model_dump(mode="json", include={*settings_where(speed=True)})
    return {"machine": this_machine().name, "base_model": concept.base_model, **speed}


# Memory, counted from the model's shapes.


class Memory(NamedTuple):
    """Bytes on the device while a step is taken; CUDA's own context comes on top."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


def memory_of_run(concept: Concept, device: torch.device, words: int) -> str:
    """`memory_advice` for a run that begins now, by what is free on its device."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    return memory_advice(concept, number_format(concept, device), free, "that are free", words)


def memory_advice(
    concept: Concept, dtype: torch.dtype, available: int | None, where: str, words: int = 1
) -> str:
    """What a step of so many words takes; where that is more than is there, what each remedy brings it to.

    Args:
        available: bytes; None where that is not known.
        where: they are, for example `on Tesla T4`.
    """
    needed = memory_needed(concept, dtype, words)
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
            total = memory_needed(concept.changed(training={name: value}), dtype, words).total
            remedies.append(f"{name}={value!r} ({total / GIB:.2f} GiB)")
    return f"{sentence} That is more than there is. Should it fail, set {' or '.join(remedies)}."


def memory_needed(concept: Concept, dtype: torch.dtype, words: int = 1) -> Memory:
    """Count weights, and what a forward pass keeps, on torch's `meta` device, which holds no numbers."""
    counted = concept.training.model_dump(include={*settings_where(memory=True)})
    return _counted(concept.base_model, dtype, min(words, WORDS_AT_ONCE), **counted)


@lru_cache(maxsize=32)  # a form asks at each key, and the run itself once more
def _counted(base_model: str, dtype: torch.dtype, words: int, **counted) -> Memory:
    shapes, settings = load_shapes(base_model, dtype), TrainingSettings(**counted)
    resolution = settings.resolution or shapes.resolution
    model = Model(shapes, torch.device("meta"), dtype, resolution)
    networks = nn.ModuleList([shapes.unet, *shapes.text_encoders])
    weights = _weight_bytes(networks) - _spared(shapes.unet, settings.quantize)
    weights += _weight_bytes(shapes.vae) if settings.random_crop else 0
    samples = settings.train_batch_size * settings.timesteps_per_picture * words
    for encoder in shapes.text_encoders:  # the new rows lie here
        encoder.get_input_embeddings().weight.requires_grad_(True)
    activations = saved_bytes(networks, lambda: _forward(model, samples))
    if settings.gradient_checkpointing:
        checkpoint_gradients(shapes)
        blocks = len(shapes.unet.down_blocks) + 1 + len(shapes.unet.up_blocks)
        again = activations // blocks  # one block at a time is computed again
        activations = again + saved_bytes(networks, lambda: _forward(model, samples))
    return Memory(weights, activations)


def _forward(model: Model, samples: int) -> torch.Tensor:
    unet, side = model.unet.config, latent_side(model.components, model.resolution)
    with torch.device("meta"):
        latents = torch.zeros(samples, unet.in_channels, side, side)
        timesteps = torch.zeros(samples, dtype=torch.long)
        lengths = [encoder.config.max_position_embeddings for encoder in model.components.text_encoders]
        sentences = [torch.zeros(samples, length, dtype=torch.long) for length in lengths]
    return model.predict(latents, timesteps, model.embed(sentences))


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _spared(unet: nn.Module, quantize: str) -> int:
    linear = [module.weight for module in unet.modules() if isinstance(module, nn.Linear)]
    kept = _BYTES_PER_WEIGHT[quantize]
    return int(sum(weight.nbytes - weight.numel() * kept for weight in linear)) if kept else 0


def saved_bytes(module: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
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
