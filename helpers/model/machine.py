"""Importing the model libraries without starting CUDA, and the number format of this machine.

bitsandbytes starts CUDA when it is imported, and a process that has started CUDA can't be forked for a second
GPU.
"""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
import transformers

from ..common.errors import UserError


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the bars, notices and warnings of transformers and diffusers, as while a model is loaded."""
    with contextlib.ExitStack() as stack:
        for library in (transformers.utils.logging, diffusers().utils.logging):
            stack.callback(library.set_verbosity, library.get_verbosity())
            if library.is_progress_bar_enabled():
                stack.callback(library.enable_progress_bar)
            library.set_verbosity_error()
            library.disable_progress_bar()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", FutureWarning)
        yield


def bitsandbytes() -> ModuleType:
    """Import bitsandbytes without its notice about a faster 4-bit kernel for some processors.

    That would have to be downloaded, and has no gradient: `quantize` does not use it.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def diffusers() -> ModuleType:
    """Import diffusers without bitsandbytes, which its models, its pipelines and peft would import."""
    import diffusers
    from diffusers.utils import import_utils

    with mock.patch.object(import_utils, "_bitsandbytes_available", False), _hidden("bitsandbytes"):
        import diffusers.models.modeling_utils
        from peft.import_utils import is_bnb_available

        is_bnb_available()  # peft keeps the answer
    return diffusers


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make a module look as if it was not installed, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]


# The number format that this machine computes in.
_FORMATS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CPU_INFO = Path("/proc/cpuinfo")


def pick_dtype(mixed_precision: str, device: torch.device | str) -> torch.dtype:
    """The number format of the frozen weights on `device`.

    Args:
        mixed_precision: `no`, `fp16`, `bf16`, or `auto`: bfloat16 if the hardware has it, else
            float16 on a CUDA GPU and float32 elsewhere.
        device: where the model runs. For a GPU this starts CUDA: call it inside the training function, never
            in the notebook's process.

    Raises:
        UserError: the device can't compute in the format that was asked for.
    """
    device = torch.device(device)
    on_gpu, on_cpu = device.type == "cuda", device.type == "cpu"
    if on_gpu:
        # torch.cuda.is_bf16_supported() says yes on a T4, which only emulates it, slowly.
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_bfloat16 = on_cpu and _cpu_has_bfloat16()
    if mixed_precision == "auto":
        otherwise = torch.float16 if on_gpu else torch.float32
        return torch.bfloat16 if has_bfloat16 else otherwise
    if mixed_precision == "bf16" and on_gpu and not has_bfloat16:
        raise UserError("This GPU has no bfloat16: set mixed_precision to “fp16” or “auto”.")
    if mixed_precision == "fp16" and on_cpu:
        raise UserError("float16 needs a GPU: set mixed_precision to “bf16”, “no” or “auto” on a CPU.")
    return _FORMATS[mixed_precision]


def _cpu_has_bfloat16() -> bool:
    words = CPU_INFO.read_text().split() if CPU_INFO.is_file() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)
