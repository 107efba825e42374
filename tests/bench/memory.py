"""Memory above the loaded model, each loop in a process of its own.

That process is `python -m tests.bench.memory LOOP SIZE`.
"""

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from helpers.common.places import repository_folder
from helpers.concept.concept import Concept
from helpers.model.base_model import Components

from .geometry import our_loop, sd15_components, sd15_concept
from .ledger import Ledger, Measurement
from .rivals import RIVALS
from .setting import make_concept, their_parts

LOOPS = (*RIVALS, "ours")
SIZES: dict[str, Callable[[], tuple[Components, Concept]]] = {
    "miniature": lambda: (their_parts(), make_concept("memory", train_batch_size=1)),
    "sd15": lambda: (sd15_components(), sd15_concept()),
}
STEPS = 2


def measure_memory(ledger: Ledger) -> None:
    for size in SIZES:
        for loop in LOOPS:
            ledger.once(f"memory/{size}/{loop}", lambda loop=loop, size=size: in_own_process(loop, size))


def in_own_process(loop: str, size: str) -> Measurement:
    command = [sys.executable, "-m", __name__, loop, size]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=repository_folder())
    return json.loads(done.stdout.splitlines()[-1])


def take_steps(loop: str, size: str) -> Measurement:
    """Set a loop up, take a few steps at batch 1, and look at what they took.

    Returns:
        `peak_bytes`: the process' peak above what it held with the model loaded.
        `extra_bytes`: tensors that are neither the loaded model's nor the latents' cache, after the
            steps, and the gradient of what is trained.
    """
    parts, concept = SIZES[size]()
    loaded = [weakref.ref(tensor) for tensor in _live_tensors()]
    _forget_peak()
    before = _process_bytes("VmRSS")
    contender = RIVALS[loop](parts, concept) if loop in RIVALS else our_loop(parts, concept)
    for _ in range(STEPS):
        contender.step()
    peak = _process_bytes("VmHWM") - before
    still_there = [tensor for reference in loaded if (tensor := reference()) is not None]
    not_counted = _storages([*still_there, *_cache(contender)])
    live = _live_tensors()
    gradients = sum(tensor.nbytes for tensor in live if tensor.is_leaf and tensor.requires_grad)
    extra = sum(size for address, size in _storages(live).items() if address not in not_counted)
    return {"peak_bytes": peak, "extra_bytes": extra + gradients}


def _cache(contender) -> list[torch.Tensor]:
    if not hasattr(contender, "learner"):
        return []
    posterior = contender.learner.latents.posterior
    return [posterior.mean, posterior.deviation]


def _live_tensors() -> list[torch.Tensor]:
    gc.collect()
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Bytes by address, each piece of memory once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _forget_peak() -> None:
    """Let Linux count the peak from here (`man proc`, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _process_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(take_steps(*sys.argv[1:])))
