"""How fast a concept trains on this machine: measured on request, or read from a run that was here.

`python -m helpers.training.pace` takes a few steps and keeps nothing; the notebook starts it as a process of
its own, so that no GPU is touched where the training will be launched from.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .. import places
from ..concept import Concept
from ..errors import UserError
from ..images import image_paths
from ..machine import this_machine
from .log import read_log

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
        [sys.executable, "-m", "helpers.training.pace"],
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
    from .initializers import fixed_loss
    from .learner import Learner
    from .model import load_model
    from .processes import Processes
    from .update import make_scaler, update

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
