"""A run as it stands after a step, so that a run that was killed goes on as if it had not been."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAME = "state.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write to a temporary name, then rename: a kill leaves the old checkpoint or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NAME}.partial"
    torch.save(state, partial)
    partial.replace(folder / NAME)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a training folder, on the CPU, or None."""
    path = folder / NAME
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def random_states() -> dict[str, Any]:
    """Every generator that a library may draw from; the run's own draws have one of their own."""
    version, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [version, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
