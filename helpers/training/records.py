"""What happened in a run, a line for each event: `log.jsonl`, and the same for TensorBoard."""

import hashlib
import io
import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..common import places
from ..common.errors import UserError
from ..common.files import write_whole
from ..concept.concept import Concept
from ..dataset.captions import captions_of
from ..dataset.images import image_paths

OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        concept: its name.
        ended: `learned`, `ceiling` (max_train_steps), `stopped` (by a person) or `failed`.
        reason: the same as a sentence.
        steps: optimizer steps taken, over all sittings.
        best_step: the step whose rows are the result, 0 if nothing was better than the initializer.
        seconds: time taken in all sittings, loading included.
        first_fixed_loss, best_fixed_loss: the initializer's, and that of the result (at the nearest
            step where it was measured).
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
        partial = folder / f"{OUTCOME_FILE}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / OUTCOME_FILE)

    @classmethod
    def load(cls, concept: Concept) -> "Outcome":
        """Read what the last run of a concept left.

        Raises:
            UserError: it was never trained to an end.
        """
        path = concept.training_folder / OUTCOME_FILE
        if not path.is_file():
            raise UserError(f"“{concept.name}” has not been trained yet: run notebook 4 first.")
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def __str__(self) -> str:
        return (
            f"{self.concept}: {self.steps} steps in {self.seconds / 60:.1f} minutes. {self.reason} "
            f"Kept: step {self.best_step}, fixed loss {self.best_fixed_loss:.4f} "
            f"(the initializer's {self.first_fixed_loss:.4f})."
        )


class Log:
    """Appends to `log.jsonl` in a training folder and to `tensorboard/` beside it.

    A line is a dictionary with `step` and, as they come: `loss`, `learning_rate`, `norm` (the mean of
    `norms`, one a row), `seconds` (of the run so far) for a step; `fixed_loss`; `score`; `event` with a
    sentence.

    Args:
        folder: the training folder.
        step: lines after this step, left by a run that was killed, are dropped.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        _drop_after(self.path, step)
        self._lines = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: Any) -> None:
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training folder's log; none where there is no log. A damaged line is left out."""
    path = folder / "log.jsonl"
    return parse_lines(path.read_bytes()) if path.is_file() else []


def parse_lines(content: bytes) -> list[dict[str, Any]]:
    """The whole lines of a log; without one half written, or damaged by a machine that went down."""
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    parsed = (_parse(line) for line in whole.split("\n"))
    return [line for line in parsed if isinstance(line, dict) and "step" in line]


def series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one quantity, for a plot."""
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def row_norms(concept: Concept, lines: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and lengths of each row of a word, by the token it stands for; XL has each token twice."""
    steps, norms = series(lines, "norms")
    rows, tokens = list(zip(*norms, strict=True)), concept.placeholder_tokens
    encoders = ["", ", second encoder"][: len(rows) // len(tokens)]
    names = [token + encoder for encoder in encoders for token in tokens]
    return {name: (steps, list(values)) for name, values in zip(names, rows, strict=False)}


def _drop_after(path: Path, step: int) -> None:
    kept = [json.dumps(line) + "\n" for line in read_log(path.parent) if line["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)


# Reading the log of a run again and again while it grows.


class LogFollower:
    """Holds the lines of a training folder's `log.jsonl`; each `read` takes in only what is new.

    A log that was replaced, by a run that goes on from a checkpoint or starts over, is read anew.

    Attributes:
        lines: as from `read_log`.
    """

    def __init__(self, folder: Path):
        self.lines: list[dict[str, Any]] = []
        self._path, self._file, self._read = folder / "log.jsonl", None, 0

    def read(self) -> bool:
        """Take in what was written since the last call; whether the lines have changed."""
        if not self._path.is_file():
            return self._forget()
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = status.st_dev, status.st_ino
            replaced = (identity != self._file or status.st_size < self._read) and self._forget()
            self._file = identity
            return self._take(file) or replaced

    def _take(self, file) -> bool:
        file.seek(self._read)
        new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self.lines += parse_lines(whole)
        self._read += len(whole)
        return bool(whole)

    def _forget(self) -> bool:
        had = bool(self.lines)
        self.lines, self._file, self._read = [], None, 0
        return had


# A run as it stands after a step, so that a run that was killed goes on as if it had not been.
STATE_FILE = "state.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write to a temporary name, then rename: a kill leaves the old checkpoint or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(folder / STATE_FILE, content.getvalue())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a training folder, on the CPU, or None.

    Raises:
        UserError: it is damaged.
    """
    path = folder / STATE_FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        raise UserError(
            f"The checkpoint {path} is damaged, so this run can't go on: start over with FRESH = True "
            "(on the command line: --fresh). What there is of it is renamed, not deleted."
        ) from None


# What a concept's training folder holds from before: to be gone on with, returned, or put aside.
MADE_WITH = "made_with.json"
# Settings that may change between two sittings of the same run: its length, what is shown, the machine.
_MAY_CHANGE = {
    "max_train_steps",
    "stop_when_learned",
    "sample_every",
    "checkpoint_every",
    "num_processes",
    "gradient_checkpointing",
    "compile",
    "save_pipeline",
}


def finished(concept: Concept) -> Outcome | None:
    """The outcome of a run that has nothing left to do under the concept's settings, or None."""
    if not (concept.training_folder / OUTCOME_FILE).is_file() or not concept.embeds_path.is_file():
        return None
    outcome, settings = Outcome.load(concept), concept.training
    learned = outcome.ended == "learned" and settings.stop_when_learned
    full = outcome.ended in ("learned", "ceiling") and outcome.steps >= settings.max_train_steps
    return outcome if learned or full else None


def made_with(concept: Concept) -> dict:
    """All that decides how a run goes: the settings, each picture's fingerprint, captions, the weights.

    Raises:
        UserError: the concept has no pictures, or a caption can't be used.
    """
    settings = concept.model_dump(mode="json")
    settings["training"] = {
        name: value for name, value in settings["training"].items() if name not in _MAY_CHANGE
    }
    pictures = [hashlib.sha256(path.read_bytes()).hexdigest() for path in image_paths(concept)]
    weights = {"weights": places.miniature_mark()} if concept.base_model == "miniature" else {}
    captions = captions_of(concept)
    own = (
        {"captions": captions} if captions else {}
    )  # left out where there are none, as before there were any
    return {"concept": settings, "pictures": pictures, **own, **weights}


def is_another(concept: Concept, now: dict) -> bool:
    """Whether the training folder was made with something other than `now`, which `made_with` gave."""
    path = concept.training_folder / MADE_WITH
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) != now


def write_made_with(concept: Concept, now: dict) -> None:
    concept.training_folder.mkdir(parents=True, exist_ok=True)
    partial = concept.training_folder / f"{MADE_WITH}.partial"
    partial.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    partial.replace(concept.training_folder / MADE_WITH)


def put_aside(concept: Concept) -> Path | None:
    """Rename `training/` to `training-1/`, `-2/`, ... with the result in it, so that nothing is lost."""
    folder = concept.training_folder
    if not folder.is_dir():
        return None
    for result in concept.folder.glob("learned_embeds.*"):
        shutil.copy2(result, folder)
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return folder.rename(aside)
