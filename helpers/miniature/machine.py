"""Where the miniature is trained, and in which arithmetic: the quickest that the machine has."""

import functools
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend

_WORTH_COMPILING = 500  # steps: it takes a minute or two


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the machine multiplies it quickly, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_quick_bf16(device))


@functools.cache
def has_quick_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is worth it: on a GPU, or a CPU with AVX-512 bf16 (as Linux lists)."""
    if device.type == "cuda":
        return True
    features = Path("/proc/cpuinfo")
    listed = features.exists() and "avx512_bf16" in features.read_text()
    return listed and torch.backends.cpu.get_cpu_capability() == "AVX512"


def attention_backends(device: torch.device) -> list[SDPBackend]:
    """What computes attention, for `torch.nn.attention.sdpa_kernel`.

    On a CPU plain matrix products: for the few tokens of the miniature, the backward pass of torch's flash
    attention took a third of a training step.
    """
    if device.type == "cpu":
        return [SDPBackend.MATH]
    return [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def compile_where_it_pays(module: nn.Module, steps: int) -> None:
    """`torch.compile`, for a run long enough to repay it, where there is what it needs: a C++ compiler."""
    if steps >= _WORTH_COMPILING and (shutil.which("g++") or shutil.which("clang++")):
        module.compile()


def end_with_parent() -> None:
    """In a worker process: end when the process that started it is gone, be it killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
