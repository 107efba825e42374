"""What a training will need on this machine, before it is launched; reads no weights, touches no GPU."""

from dataclasses import dataclass

from ..base_model import load_shapes
from ..concept import Concept
from ..machine import Machine, this_machine
from .memory import GIB, Forecast, forecast
from .pace import Pace, known_pace


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
    dtype = machine.dtype(settings.mixed_precision)
    shapes = load_shapes(concept.base_model, dtype)
    memory = forecast(shapes, settings, settings.resolution or shapes.resolution, dtype)
    pace = known_pace(concept)
    return Estimate(machine, memory, pace, pace.seconds(concept) if pace else None)
