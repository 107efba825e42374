"""The processes of a run, which share each batch; their threads, interrupts and failures."""

import errno
import functools
import gc
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env, reduce

from ..common.errors import UserError, memory_is_full
from .records import LOG_FILE

T = TypeVar("T")


class Processes:
    """The processes of a run by accelerate's state: their number, which one this is, and its device."""

    def __init__(self):
        # Without a GPU, processes find one another only if accelerate is told to use the CPU.
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not (
            torch.cuda.is_available() or torch.backends.mps.is_available()
        )
        self._state = PartialState(cpu=cpu)
        self.count, self.index = self._state.num_processes, self._state.process_index
        self.device = self._state.device

    @property
    def is_main(self) -> bool:
        """The main process alone writes and prints."""
        return self.index == 0

    def average(self, gradient: torch.Tensor) -> torch.Tensor:
        """The mean over all processes: the gradient of the whole batch's mean loss."""
        return reduce(gradient, "mean") if self.count > 1 else gradient

    def agree(self, value):
        """The main process' value in every process, so that all decide alike."""
        return broadcast_object_list([value])[0] if self.count > 1 else value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        if self.count == 1:
            return flag
        total = reduce(torch.tensor(float(flag), device=self.device), "sum")
        return bool(total > 0)

    def wait(self) -> None:
        self._state.wait_for_everyone()

    def close(self) -> None:
        """Forget the state, so that this process can launch another number of processes later."""
        self._state.destroy_process_group()
        PartialState._reset_state()


class FreeCores:
    """Gives torch as many threads as other programs leave cores free, at each `adjust`, until `close`.

    For the miniature on a CPU: its operations are so small that threads mostly wait for each other, and a
    thread that shares its core makes a step many times as slow (tests/bench/busy.py). Nothing is changed if
    it isn't `active`, or a person has set OMP_NUM_THREADS.
    """

    def __init__(self, active: bool):
        self.active = active and "OMP_NUM_THREADS" not in os.environ
        self.most, self.cores = torch.get_num_threads(), psutil.cpu_count()
        self.own = psutil.Process()
        self.taken_by_others()  # from now on

    def close(self) -> None:
        if self.active:
            torch.set_num_threads(self.most)

    def adjust(self) -> None:
        """Set the number of threads by what other programs have used since the last call."""
        if self.active:
            free = round(self.cores - self.taken_by_others())
            torch.set_num_threads(max(1, min(self.most, free)))

    def taken_by_others(self) -> float:
        """The number of cores that other processes have used since the last call, on average."""
        return (self.cores * psutil.cpu_percent() - self.own.cpu_percent()) / 100


def in_own_process(function: Callable[..., T], *given) -> T:
    """Call a function in a new process; print what it prints, and return what it returns.

    It may start CUDA there: once a notebook's own process has, it can't launch a training on several GPUs.
    An interrupt ends the new process. Function, arguments and result must be picklable.

    Raises:
        UserError: the process was killed, for example because memory was full.
        Exception: what the function raised.
    """
    vars(sys.modules["__main__"]).setdefault("__spec__")  # `spawn` reads it, and some notebooks have none
    context = multiprocessing.get_context("spawn")  # the fork of a process with threads may hang
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, given), daemon=True)
    process.start()
    sender.close()
    try:
        while isinstance(message := receiver.recv(), str):
            print(message, end="", flush=True)
    except EOFError:
        raise UserError(
            "The process that looked at the model ended without an answer, probably because memory was full: "
            "close other programs and notebooks, and run this again."
        ) from None
    finally:
        process.kill()
        process.join()
    result, error = message
    if error:
        raise error
    return result


def _call(sender: Connection, function: Callable, given: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel's interrupt comes here, too: it will kill us
    printed = io.TextIOBase()
    printed.write = sender.send
    try:
        with redirect_stdout(printed):
            message = function(*given), None
    except Exception as error:
        message = None, error
    sender.send(message)


class Interrupts:
    """Within `with`, an interrupt (Ctrl-C, the kernel's ■) or SIGTERM sets `asked`; a second one raises."""

    SAME = 1.0  # seconds: a launcher of several processes sends them the kernel's interrupt again

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


# What a person can do when memory or disk fails during a run. The last checkpoint is always complete.
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
    """Turn the errors of a full memory, or of a disk that is full, read-only or gone, into a UserError.

    It is raised outside of the traceback, which would keep the model alive: a notebook keeps its last error.
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
