"""Controlling a run from outside: resume, state, stop requests; and the machine's failures as sentences."""

import errno
import functools
import gc
import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from ..common import places
from ..common.errors import UserError, memory_is_full
from ..common.files import holder, write_json
from ..concept.concept import Concept
from .records import INPUTS_FILE, LOG_FILE, SUMMARY_FILE, RunSummary

OUTPUT = "resume.log"
_RESUMED = "resume.json"  # when `resume` was last asked
_STARTED: dict[Path, subprocess.Popen] = {}  # by training folder: what this process has started
_LAUNCHERS_REMARK = re.compile(r"E\d{4} \d\d:\d\d:")
_LOADING = 20.0  # seconds at most until a process that another kernel started holds the lock
State = Literal["new", "starting", "running", "broken", "learned", "ceiling", "stopped", "failed"]


def resume(concept: Concept) -> None:
    """Start `python -m helpers.training` on a concept's folder; its output goes to `training/resume.log`.

    On several GPUs it is as many processes as the launcher of the notebook would start. They have a
    session of their own, so that an interrupt of the kernel leaves them alone: the stop file ends them.
    Where such a process is at work already, nothing is done.
    """
    folder = concept.training_folder
    if holder(concept.lock_path) or _is_starting(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / OUTPUT).open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *_launcher(concept), "-m", "helpers.training", str(concept.folder)],
            cwd=places.repository_folder(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _STARTED[folder] = process
    write_json(folder / _RESUMED, {"at": time.time()})
    threading.Thread(target=_wait, args=(process, folder), daemon=True).start()


def state_of(concept: Concept, lines: list[dict[str, Any]]) -> State:
    """The state of a concept's run, by its log's lines too: how it ended, or what it is doing.

    `starting` and `broken` are said of a process that `resume` started, which may be another kernel's:
    it loads, or it ended without saying how. A run that was killed reads as `running`.
    """
    folder = concept.training_folder
    begun = _modified_at(folder / INPUTS_FILE)
    if at_work := holder(concept.lock_path):
        return "running" if begun > at_work.start else "starting"
    if _is_starting(folder):
        return "starting"
    resumed, said, ended = (_modified_at(folder / file) for file in (_RESUMED, OUTPUT, SUMMARY_FILE))
    if ended <= resumed and resumed and begun <= max(resumed, said):
        return "broken"
    with suppress(UserError):  # there is none, or a damaged one
        summary = RunSummary.load(concept)
        if begun <= ended and (not lines or lines[-1].get("event") == summary.reason):
            return summary.ended
    return "running" if lines else "new"


def last_output(folder: Path) -> str:
    """The last line that a process started by `resume` wrote, before a launcher's own remarks on its end."""
    path = folder / OUTPUT
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    lines = list(itertools.takewhile(lambda line: not _LAUNCHERS_REMARK.match(line), lines))
    return next((line.strip() for line in reversed(lines) if line.strip()), "It wrote nothing.")


def _launcher(concept: Concept) -> list[str]:
    processes = min(concept.training.num_processes, torch.cuda.device_count())  # counted, not touched
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] * (processes > 1)


def _wait(process: subprocess.Popen, folder: Path) -> None:
    """Write down that the process was killed, which it could not do itself."""
    if process.wait() < 0 and folder.is_dir():
        with (folder / OUTPUT).open("a", encoding="utf-8") as output:
            output.write(f"\nThe process was killed (signal {-process.returncode}).\n")


def _is_starting(folder: Path) -> bool:
    """Whether a process of `resume` is at work, or may be in another kernel; it has not ended yet."""
    asked = _modified_at(folder / _RESUMED)
    if _modified_at(folder / SUMMARY_FILE) > asked:
        return False
    process = _STARTED.get(folder)
    return process.poll() is None if process else 0 <= time.time() - asked < _LOADING


def _modified_at(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


# Being asked to stop: by a file, by the kernel's interrupt, by the machine.
STOP_FILE = "stop"


def request_stop(folder: Path) -> Path:
    """Ask the run of a training folder to stop after its step: make the file that it looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP_FILE).touch()
    return folder / STOP_FILE


def stop_requested(folder: Path) -> bool:
    return (folder / STOP_FILE).exists()


def clear_request(folder: Path) -> None:
    (folder / STOP_FILE).unlink(missing_ok=True)


class Interrupts:
    """Within `with`, an interrupt (Ctrl-C, the kernel's ■) or SIGTERM is noted; a second stops at once."""

    SAME = 1.0  # seconds: a launcher of several processes hands each of them the kernel's interrupt again

    def __init__(self):
        self.asked, self._since = False, 0.0
        self._before: dict[int, Callable] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.asked and now - self._since > self.SAME:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._since = True, now


# What a person can do when memory or disk fails a run. The last checkpoint is whole.
_GOES_ON = "and train again. It goes on from the last checkpoint"
_MEMORY_FULL = (
    "The memory is full: set train_batch_size to 1, or gradient_checkpointing, or quantize to “4bit”, "
    f"{_GOES_ON} where the settings allow it."
)
_DISK_FULL = f"The disk is full: make room on it, {_GOES_ON}, which is whole."
_NOT_WRITABLE = f"“{{path}}” can't be written: make its folder writable, {_GOES_ON}."
_GONE = "The folder “{path.parent}” was moved or deleted during the run: put it back, and train again."
_OF_DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _DISK_FULL)
_OF_DISK |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _NOT_WRITABLE)


def in_sentences(function: Callable) -> Callable:
    """Turn a full memory, and a disk that is full, read-only or gone, into a UserError.

    It is raised when the model is gone: a notebook keeps its last error, and with it all that the functions
    in the traceback hold.
    """

    @functools.wraps(function)
    def wrapped(*given, **named):
        try:
            return function(*given, **named)
        except (OSError, RuntimeError, MemoryError) as error:
            path = Path(getattr(error, "filename", None) or "")
            number = getattr(error, "errno", None)
            is_gone = number == errno.ENOENT and path.name == LOG_FILE
            sentence = _GONE if is_gone else _OF_DISK.get(number)
            sentence = _MEMORY_FULL if memory_is_full(error) else sentence
            if not sentence:
                raise
        gc.collect()
        raise UserError(sentence.format(path=path))

    return wrapped
