"""What a training will need on this machine, before it is launched; reads no weights, touches no GPU."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..base_model import load_shapes
from ..concept import Concept, TrainingSettings
from ..machine import Machine, this_machine
from .memory import GIB, Forecast, forecast
from .pace import Pace, known_pace

# The settings that decide how much memory a step takes, beside model and number format.
MEMORY = (
    "resolution",
    "random_crop",
    "train_batch_size",
    "timesteps_per_picture",
    "gradient_checkpointing",
    "quantize",
)


@dataclass(frozen=True)
class Estimate:
    """Memory by counting, time by measuring; `str()` says both in sentences.

    Attributes:
        seconds: for all steps that are allowed, None where no pace is known.
    """

    machine: Machine
    memory: Forecast
    pace: Pace | None
    seconds: float | None

    def __str__(self) -> str:
        return f"{self._memory()} {self._time()}"

    def _memory(self) -> str:
        has = f" of {self.machine.memory / GIB:.1f}" if self.machine.memory else ""
        short = bool(self.machine.memory) and self.memory.total > self.machine.memory
        return (
            f"Memory: about {self.memory.total / GIB:.2f}{has} GiB on {self.machine.name}."
            + " That is more than there is: set gradient_checkpointing, train_batch_size 1 or quantize."
            * short
        )

    def _time(self) -> str:
        if self.pace is None:
            return "Time: not known before it is measured here."
        minutes = self.seconds / 60
        shown = f"{minutes:.1f} minutes" if minutes >= 1 else f"{self.seconds:.0f} seconds"
        return (
            f"Time: at most {shown}, {self.pace.step:.2g} s a step ({self.pace.source}); samples come on top."
        )


def estimate(concept: Concept) -> Estimate:
    """Memory and time of the concept's training here.

    Raises:
        UserError: the base model can't be read, or this machine can't compute in the format asked for.
    """
    machine, settings = this_machine(), concept.training
    counted = tuple((name, getattr(settings, name)) for name in MEMORY)
    memory = _forecast(concept.base_model, machine.dtype(settings.mixed_precision), counted)
    pace = known_pace(concept)
    return Estimate(machine, memory, pace, pace.seconds(concept) if pace else None)


@lru_cache(maxsize=32)
def _forecast(base_model: str, dtype: torch.dtype, counted: tuple[tuple[str, Any], ...]) -> Forecast:
    """Kept, since a form asks at each key."""
    shapes, settings = load_shapes(base_model, dtype), TrainingSettings(**dict(counted))
    return forecast(shapes, settings, settings.resolution or shapes.resolution, dtype)
