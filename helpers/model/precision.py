"""Which number format a machine computes in."""

from pathlib import Path

import torch

from ..common.errors import UserError

_FORMATS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CPU_INFO = Path("/proc/cpuinfo")


def pick_dtype(mixed_precision: str, device: torch.device | str) -> torch.dtype:
    """The format for the frozen weights' arithmetic on `device`.

    Args:
        mixed_precision: `no`, `fp16`, `bf16`, or `auto`: bfloat16 where the hardware has it, else
            float16 on a CUDA GPU and float32 elsewhere.
        device: where the model runs. For a CUDA device its compute capability is asked, which
            starts CUDA: call this inside the training function, never in the notebook's process.

    Raises:
        UserError: the device can't compute in the format that was asked for.
    """
    device = torch.device(device)
    if mixed_precision == "auto":
        return _fastest(device)
    if mixed_precision == "bf16" and device.type == "cuda" and not _cuda_has_bfloat16(device):
        raise UserError("This GPU has no bfloat16: set mixed_precision to “fp16” or “auto”.")
    if mixed_precision == "fp16" and device.type == "cpu":
        raise UserError("float16 needs a GPU: set mixed_precision to “bf16”, “no” or “auto” on a CPU.")
    return _FORMATS[mixed_precision]


def _fastest(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if _cuda_has_bfloat16(device) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def _cuda_has_bfloat16(device: torch.device) -> bool:
    # torch.cuda.is_bf16_supported() says yes on a T4, which only emulates it, slowly.
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bfloat16() -> bool:
    words = CPU_INFO.read_text().split() if CPU_INFO.is_file() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)
