"""The files of a run in a concept's `training/` folder; its state is read from them, and it resumes by them.

`made_with.json` has its inputs, `log.jsonl` its history, `state.pt` the last checkpoint, and `outcome.json`
how it ended.
"""

import errno
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..common import places
from ..common.errors import DAMAGED, UserError
from ..common.files import holder, read_json, write_json, write_whole
from ..concept.concept import Concept, settings_where
from ..dataset.images import captions_of, image_paths

INPUTS_FILE = "made_with.json"
LOG_FILE = "log.jsonl"
STATE_FILE = "state.pt"
SUMMARY_FILE = "outcome.json"


@dataclass(frozen=True, repr=False)
class RunSummary:
    """How a run ended.

    Attributes:
        ended: `learned` (the fixed loss stopped falling), `ceiling` (max_train_steps), `stopped` (by a
            person) or `failed`; `reason` is a sentence that says so.
        steps, seconds: taken so far, including loading and what was before an interruption.
        best_step: the step whose rows are the result; 0 if none were better than the initializer.
        first_fixed_loss, best_fixed_loss: of the initializer, and of the result (at the nearest evaluation).
    """

    concept: str
    ended: Literal["learned", "ceiling", "stopped", "failed"]
    reason: str
    steps: int
    best_step: int
    seconds: float
    first_fixed_loss: float
    best_fixed_loss: float

    def save(self, folder: Path) -> None:
        content = {name: value for name, value in asdict(self).items() if name != "concept"}
        write_json(folder / SUMMARY_FILE, content)

    @classmethod
    def load(cls, concept: Concept) -> "RunSummary":
        """How the last run of a concept ended; a UserError where none did, or its file is damaged."""
        path = concept.training_folder / SUMMARY_FILE
        if not path.is_file():
            raise UserError(f"“{concept.name}” has not been trained yet: run notebook 4 first.")
        with suppress(TypeError):  # no dictionary, or one with other keys
            return cls(**{**read_json(path), "concept": concept.name})
        raise UserError(f"training/{path.name} of “{concept.name}” is damaged: run notebook 4 again.")

    def __repr__(self) -> str:
        return (
            f"{self.concept}: {self.steps} steps in {self.seconds / 60:.1f} minutes. {self.reason} "
            f"Kept: step {self.best_step}, fixed loss {self.best_fixed_loss:.4f} "
            f"(the initializer's {self.first_fixed_loss:.4f})."
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"  # a page wraps it at words


class Log:
    """Appends to `log.jsonl` in a training folder, and to `tensorboard/` beside it.

    Each line is a dictionary with `step` and either `loss`, `learning_rate`, `norm` (the mean of `norms`, one
    per row) and `seconds` (of the run so far); or `fixed_loss`; or `score`; or `event`, a sentence. Lines
    after the step at which it is opened are dropped: a run that was killed left them.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / LOG_FILE
        kept = [json.dumps(line) + "\n" for line in read_log(folder) if line["step"] <= step]
        write_whole(self.path, "".join(kept))
        self._lines = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: Any) -> None:
        if not self.path.is_file():  # moved or deleted; an open file would not notice
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training folder's log, without damaged ones; none if there is no log."""
    path = folder / LOG_FILE
    content = path.read_bytes() if path.is_file() else b""
    complete = content[: content.rfind(b"\n") + 1].decode(
        "utf-8", errors="replace"
    )  # the last may be cut off
    lines = []
    for line in complete.split("\n"):
        with suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def logged(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of one quantity."""
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def steps_per_second(lines: list[dict[str, Any]], last: int = 50) -> float | None:
    """Over the last steps since a start, including evaluation; None before two steps, and after the end."""
    since = max((place for place, line in enumerate(lines) if "event" in line), default=-1)
    steps, seconds = (values[-last - 1 :] for values in logged(lines[since + 1 :], "seconds"))
    if len(steps) < 2 or seconds[-1] <= seconds[0]:
        return None
    return (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])


def row_norms(concept: Concept, lines: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and norms of each row by its token, and for XL by its text encoder."""
    steps, norms = logged(lines, "norms")
    rows, tokens = list(zip(*norms, strict=True)), concept.placeholder_tokens
    encoders = ["", ", second encoder"][: len(rows) // len(tokens)]
    names = [token + encoder for encoder in encoders for token in tokens]
    return {name: (steps, list(values)) for name, values in zip(names, rows, strict=False)}


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state after a step; if the process is killed meanwhile, the old checkpoint stays."""
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(folder / STATE_FILE, content.getvalue())


def resume_from(folder: Path, learner: Any, scaler: torch.amp.GradScaler) -> None:
    """Load the last checkpoint, if there is one, into a learner and the run's loss scaling."""
    if state := load_checkpoint(folder):
        learner.load_state_dict(state["learner"])
        if state["scaler"]:  # empty if it was saved on a machine that needs no loss scaling
            scaler.load_state_dict(state["scaler"])


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a training folder, on the CPU, or None; a UserError if it is damaged."""
    path = folder / STATE_FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
    except DAMAGED:
        raise UserError(
            f"The checkpoint {path} is damaged, so this run can't go on: start over with FRESH = True "
            "(on the command line: --fresh). What there is of it is renamed, not deleted."
        ) from None


# Settings that may change when a run is resumed: those of its length, of what is shown and of the machine.
_MAY_CHANGE = {*settings_where(may_change=True)}
# Names make no difference to a run; older folders have them in made_with.json.
_NAMES = {"name", "placeholder_token", "earlier_words"}


def finished(concept: Concept) -> RunSummary | None:
    """The summary of the concept's run if nothing is left to do under the present settings, else None."""
    with suppress(UserError):  # missing or damaged: then the last steps are taken again
        summary, settings = RunSummary.load(concept), concept.training
        learned = summary.ended == "learned" and settings.stop_when_learned
        full = summary.ended in ("learned", "ceiling") and summary.steps >= settings.max_train_steps
        if (learned or full) and concept.embeds_path.is_file():
            return summary
    return None


def run_inputs(concept: Concept) -> dict:
    """All that decides how a run goes: the settings, each picture's hash, captions, the weights.

    Raises:
        UserError: the concept has no pictures, or a caption can't be used.
    """
    left_out = dict.fromkeys(_NAMES, True) | {"training": _MAY_CHANGE}
    inputs = {
        "concept": concept.model_dump(mode="json", exclude=left_out),
        "pictures": [hashlib.sha256(path.read_bytes()).hexdigest() for path in image_paths(concept)],
    }
    if captions := captions_of(concept):  # older folders have no such key
        inputs["captions"] = captions
    if concept.base_model == "miniature":
        inputs["weights"] = places.miniature_hash()
    return inputs


def inputs_changed(concept: Concept, inputs: dict) -> bool:
    """Whether the run in the training folder had other `run_inputs` than these."""
    path = concept.training_folder / INPUTS_FILE
    if not path.is_file():
        return False
    before = read_json(path)
    with suppress(TypeError, KeyError, AttributeError):  # damaged: then it differs
        before["concept"] = {name: value for name, value in before["concept"].items() if name not in _NAMES}
    return before != inputs


def save_inputs(concept: Concept, inputs: dict) -> None:
    write_json(concept.training_folder / INPUTS_FILE, inputs)


def archive_run(concept: Concept) -> Path | None:
    """Rename `training/` to `training-1/`, `-2/`, ... with a copy of the result, so that nothing is lost."""
    folder = concept.training_folder
    if not folder.is_dir():
        return None
    for result in concept.folder.glob("learned_embeds.*"):
        shutil.copy2(result, folder)
    return put_aside(folder)


def put_aside(folder: Path) -> Path:
    """Rename a folder to the first of `<name>-1`, `-2`, ... that does not exist."""
    number = 1
    while (archived := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return folder.rename(archived)


# Resuming a run in the background, its state, and a request to stop it.
OUTPUT = "resume.log"
_RESUMED = "resume.json"  # written when `resume` starts a process
_STARTED: dict[Path, subprocess.Popen] = {}  # the processes that this one has started, by training folder
_LAUNCHERS_REMARK = re.compile(r"^E\d{4} \d\d:\d\d:", re.MULTILINE)
_LOADING = 20.0  # seconds at most until a process that another kernel started has the lock
State = Literal["new", "starting", "running", "killed", "broken", "learned", "ceiling", "stopped", "failed"]
RESUMABLE = ("killed", "broken", "stopped")


def resume(concept: Concept) -> None:
    """Start `python -m helpers.training` on a concept's folder; its output goes to `training/resume.log`.

    On several GPUs it starts as many processes as the notebook's launcher would. They have a session of
    their own, so that an interrupt of the kernel doesn't reach them; the stop file ends them. Nothing is done
    if such a process is running already.
    """
    folder = concept.training_folder
    if holder(concept.lock_path) or _is_starting(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    count = min(concept.training.num_processes, torch.cuda.device_count())  # starts no CUDA
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] * (count > 1)
    with (folder / OUTPUT).open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "helpers.training", str(concept.folder)],
            cwd=places.repository_folder(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _STARTED[folder] = process
    write_json(folder / _RESUMED, {"pid": process.pid})
    threading.Thread(target=_wait, args=(process, folder), daemon=True).start()


def state_of(concept: Concept, lines: list[dict[str, Any]]) -> State:
    """How a concept's run has ended, or what it is doing, by its files and the lines of its log.

    `starting` and `broken` are states of a process that `resume` started, here or in another kernel: it is
    loading, or it ended without an outcome. Any other run without one is `killed`.
    """
    folder = concept.training_folder
    begun = modified_at(folder / INPUTS_FILE)
    if at_work := holder(concept.lock_path):
        return "running" if begun >= at_work.start else "starting"
    if _is_starting(folder):
        return "starting"
    resumed, said, ended = (modified_at(folder / file) for file in (_RESUMED, OUTPUT, SUMMARY_FILE))
    if resumed and ended <= resumed and begun <= max(resumed, said):
        return "broken"
    with suppress(UserError):  # missing or damaged
        summary = RunSummary.load(concept)
        if begun <= ended or summary.reason in [line.get("event") for line in lines[-1:]]:
            return summary.ended
    return "killed" if lines or begun else "new"


def last_output(folder: Path) -> str:
    """The last line that a process started by `resume` wrote, without the launcher's remarks after it."""
    path = folder / OUTPUT
    output = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    its_own = _LAUNCHERS_REMARK.split(output)[0].strip()
    return its_own.rpartition("\n")[2].strip() or "It wrote nothing."


def _wait(process: subprocess.Popen, folder: Path) -> None:
    """Wait for the process, and note in its output if it was killed."""
    if process.wait() < 0 and folder.is_dir():
        with (folder / OUTPUT).open("a", encoding="utf-8") as output:
            output.write(f"\nThe process was killed (signal {-process.returncode}).\n")


def _is_starting(folder: Path) -> bool:
    """Whether a process of `resume` is loading, as far as can be known of one from another kernel."""
    asked = modified_at(folder / _RESUMED)
    if modified_at(folder / SUMMARY_FILE) > asked:
        return False
    process = _STARTED.get(folder)
    if process and read_json(folder / _RESUMED) == {"pid": process.pid}:  # else another kernel's is newer
        return process.poll() is None
    return 0 <= time.time() - asked < _LOADING


def modified_at(path: Path) -> float:
    """When a file was last written; 0 if it doesn't exist."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


STOP_FILE = "stop"


def request_stop(folder: Path) -> Path:
    """Make the file at which the run of a training folder stops after its current step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP_FILE).touch()
    return folder / STOP_FILE


def stop_requested(folder: Path) -> bool:
    return (folder / STOP_FILE).exists()


def clear_request(folder: Path) -> None:
    (folder / STOP_FILE).unlink(missing_ok=True)
