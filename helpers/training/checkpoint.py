"""A run as it stands after a step, so that a run that was killed goes on as if it had not been."""

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError

NAME = "state.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write to a temporary name, then rename: a kill leaves the old checkpoint or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(folder / NAME, content.getvalue())


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all.

    Raises:
        OSError: there is no room for it; what was there before is still there.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a training folder, on the CPU, or None.

    Raises:
        UserError: it is damaged.
    """
    path = folder / NAME
    try:
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        raise UserError(
            f"The checkpoint {path} is damaged, so this run can't go on: start over with FRESH = True "
            "(on the command line: --fresh). What there is of it is renamed, not deleted."
        ) from None


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
