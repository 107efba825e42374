"""What this machine can carry, without touching its GPU: a notebook's process must not start CUDA."""

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache

import psutil
import torch
from accelerate.utils import is_cuda_available

from .precision import CPU_INFO, pick_dtype

_MIB = 2**20
_ASKED = "name,memory.total,compute_cap"


@dataclass(frozen=True)
class Machine:
    """Where a training launched from here would run.

    Attributes:
        name: the GPU's, or the processor's cores.
        memory: bytes that it has, whether free or not; None where that can't be found out.
        is_gpu: an NVIDIA GPU.
        has_bfloat16: whether that GPU computes in it; of a processor `pick_dtype` knows.
        processor: its model, where the system says it.
    """

    name: str
    memory: int | None
    is_gpu: bool
    has_bfloat16: bool = False
    processor: str = ""

    @property
    def mark(self) -> str:
        """Two machines of one mark are taken for equally fast."""
        return f"{self.name}, {self.processor}"

    def dtype(self, mixed_precision: str) -> torch.dtype:
        """The format that training would choose here.

        Raises:
            UserError: this machine can't compute in the format that was asked for.
        """
        if self.is_gpu and mixed_precision in ("auto", "fp16"):
            return torch.bfloat16 if mixed_precision == "auto" and self.has_bfloat16 else torch.float16
        return pick_dtype(mixed_precision, "cpu")


@cache
def this_machine() -> Machine:
    """Ask the driver's own program, `nvidia-smi`, for the first GPU that is visible; else the processor."""
    if is_cuda_available():
        return _gpu(_nvidia_smi())
    cores, memory = f"{os.cpu_count()} processor cores", psutil.virtual_memory().total
    return Machine(cores, memory, is_gpu=False, processor=_processor())


def _processor() -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _gpu(answer: str) -> Machine:
    """From a line such as `NVIDIA T4, 15360, 7.5`; a driver that gives none leaves the memory open."""
    parts = [part.strip() for part in answer.split(",")]
    if len(parts) != 3 or not parts[1].isdigit():
        return Machine("a GPU", None, is_gpu=True)
    name, mebibytes, capability = parts
    return Machine(name, int(mebibytes) * _MIB, is_gpu=True, has_bfloat16=float(capability) >= 8)


def _nvidia_smi() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    chosen = [f"--id={visible}"] if visible else []
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits", *chosen]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.strip().split("\n")[0]
