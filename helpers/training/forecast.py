"""What a training will need on this machine, before it is launched; reads no weights, touches no GPU."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

import psutil
import torch
from accelerate.utils import is_cuda_available

from ..common import places
from ..common.errors import UserError
from ..concept.concept import Concept, TrainingSettings
from ..dataset.images import image_paths
from ..model.base_model import load_shapes
from ..model.precision import CPU_INFO, pick_dtype
from .memory import GIB, Forecast, forecast
from .records import read_log

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


# How fast a concept trains on this machine: measured on request, or read from a run that was here.
MEASURED, RAN = "pace.json", "pace_of_run.json"
_SPEED = (
    "resolution",
    "random_crop",
    "train_batch_size",
    "gradient_accumulation_steps",
    "timesteps_per_picture",
    "mixed_precision",
    "gradient_checkpointing",
    "compile",
    "quantize",
)
_LATELY = 50  # steps
_WARM_UP, _MOST_STEPS, _MOST_SECONDS = 2, 10, 20.0


@dataclass(frozen=True)
class Pace:
    """Seconds that a training step takes, and a look at the fixed loss (0 where a step's time has it in)."""

    step: float
    look: float
    source: str

    def seconds(self, concept: Concept) -> float:
        """For all steps that the concept's settings allow; samples and scores come on top."""
        settings = concept.training
        looks = 1 + settings.max_train_steps // settings.evaluate_every
        return settings.max_train_steps * self.step + looks * self.look


def known_pace(concept: Concept) -> Pace | None:
    """What was measured, or the last run, with the same model and speed settings on this machine; or None."""
    return _read(concept, MEASURED) or _of_run(concept)


def measure_pace(concept: Concept) -> Pace:
    """Take a few steps in a process of its own, and keep the time in the concept's folder.

    It loads the model, so it takes as long as the beginning of a training.

    Raises:
        UserError: the training can't begin; the sentence says why.
    """
    image_paths(concept)  # before a model is loaded
    ran = subprocess.run(
        [sys.executable, "-m", "helpers.training.forecast"],
        input=concept.model_dump_json(),
        cwd=places.repository_folder(),
        env=places.environment(),
        capture_output=True,
        text=True,
    )
    last = (ran.stdout if ran.returncode == 0 else ran.stderr).strip().split("\n")[-1]
    if ran.returncode:
        raise UserError(last or "The process that measures was killed, most often for want of memory.")
    measured = Pace(**json.loads(last))
    _write(concept, MEASURED, asdict(measured))
    return measured


def note_run(concept: Concept) -> None:
    """Write down on which machine a run goes on, so that its log tells a pace later."""
    concept.training_folder.mkdir(parents=True, exist_ok=True)
    _write(concept, f"training/{RAN}", {})


def take_steps(concept: Concept) -> Pace:
    """Load the model here, take a few steps and time them; the rows are thrown away.

    Raises:
        UserError: as for a training.
    """
    from .evaluate import fixed_loss
    from .learner import Learner, make_scaler, update
    from .model import load_model
    from .processes import Processes

    processes = Processes()
    try:
        model = load_model(concept, processes.device)
        learner, scaler = Learner(concept, model, processes), make_scaler(model)
        for _ in range(_WARM_UP):
            update(model, [learner], scaler, processes)
        step = _timed(lambda: update(model, [learner], scaler, processes), _MOST_STEPS)
        loss = fixed_loss(learner, model)
        return Pace(step, _timed(lambda: loss(model), most=1), "measured")
    finally:
        processes.close()


def _timed(act: Callable[[], object], most: int) -> float:
    """Seconds a call: the mean of `most`, or of as many as are begun within 20 seconds."""
    count, started = 0, time.monotonic()
    while count < most and time.monotonic() - started < _MOST_SECONDS:
        act()
        count += 1
    return (time.monotonic() - started) / count


def _of_run(concept: Concept) -> Pace | None:
    if _entry(concept, f"training/{RAN}") is None:
        return None
    lines = read_log(concept.training_folder)
    while lines and "event" in lines[-1]:  # how it ended
        lines.pop()
    timed = []
    for line in reversed(lines):
        if "event" in line or len(timed) > _LATELY:
            break
        if "seconds" in line:
            timed.append((line["step"], line["seconds"]))
    steps = timed[0][0] - timed[-1][0] if timed else 0
    return Pace((timed[0][1] - timed[-1][1]) / steps, 0.0, "as in its last run") if steps else None


def _read(concept: Concept, name: str) -> Pace | None:
    entry = _entry(concept, name)
    return Pace(**entry) if entry else None


def _entry(concept: Concept, name: str) -> dict | None:
    """What was noted under the same circumstances."""
    path = concept.folder / name
    noted = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return noted["pace"] if noted.get("under") == _circumstances(concept) else None


def _write(concept: Concept, name: str, pace: dict) -> None:
    path = concept.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    noted = {"under": _circumstances(concept), "pace": pace}
    partial.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _circumstances(concept: Concept) -> dict:
    settings = concept.training.model_dump(mode="json")
    speed = {name: settings[name] for name in _SPEED}
    return {"machine": this_machine().mark, "base_model": concept.base_model, **speed}


def main() -> int:
    """Concept's settings come in as JSON, the pace goes out as a line of JSON, or a sentence to stderr."""
    try:
        pace = take_steps(Concept.model_validate_json(sys.stdin.read()))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(pace)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
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
