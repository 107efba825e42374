"""The processes of a run, one or several that share each batch; how they are interrupted, and fail."""

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
    """What a run needs to know of accelerate's state: how many there are, which this is, and its device."""

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
        """Only the main process writes and prints."""
        return self.index == 0

    @property
    def is_one_cpu(self) -> bool:
        return self.count == 1 and self.device.type == "cpu"

    def average(self, gradient: torch.Tensor) -> torch.Tensor:
        """The mean over all processes: the gradient of the whole batch's mean loss."""
        return reduce(gradient, "mean") if self.count > 1 else gradient

    def agree(self, value):
        """The main process' value, in every process, so that all decide alike."""
        return broadcast_object_list([value])[0] if self.count > 1 else value

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in at least one process."""
        if self.count == 1:
            return flag
        total = reduce(torch.tensor(float(flag), device=self.device), "sum")
        return bool(total > 0)

    def wait(self) -> None:
        self._state.wait_for_everyone()

    def close(self) -> None:
        """Forget the state: a later launch from this process, with another number, starts clean."""
        self._state.destroy_process_group()
        PartialState._reset_state()


class FreeCores:
    """Within `with`, torch has a thread for each core that other programs leave free, when asked to adjust.

    It is for the miniature on a CPU, whose operations are so small that its threads wait for each other most
    of the time: where one has to share its core, a step takes many times as long (tests/bench/busy.py).
    Where it isn't `active`, or a person has set OMP_NUM_THREADS, nothing is ever changed.
    """

    def __init__(self, active: bool):
        self.active = active and "OMP_NUM_THREADS" not in os.environ
        self.most, self.cores = torch.get_num_threads(), psutil.cpu_count()
        self.own = psutil.Process()
        self.taken_by_others()  # from now on

    def __enter__(self) -> "FreeCores":
        return self

    def __exit__(self, *error) -> None:
        if self.active:
            torch.set_num_threads(self.most)

    def adjust(self) -> None:
        """Go by what other programs took since the last call."""
        if self.active:
            free = round(self.cores - self.taken_by_others())
            torch.set_num_threads(max(1, min(self.most, free)))

    def taken_by_others(self) -> float:
        """Cores that were neither idle nor this process' since the last call, on average."""
        return (self.cores * psutil.cpu_percent() - self.own.cpu_percent()) / 100


def in_own_process(function: Callable[..., T], *given) -> T:
    """Call a function in a new process, where it may start CUDA, and hand on what it prints and returns.

    A notebook whose own process has started CUDA can't launch a training on several GPUs any more. An
    interrupt ends the new process. The function, what it is given and what comes of it must be picklable.

    Raises:
        UserError: the process was ended from outside, as where memory is full.
        Exception: what the function raised.
    """
    vars(sys.modules["__main__"]).setdefault("__spec__")  # asked by `spawn`; some notebooks' have none
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may never end
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


class _Sent(io.TextIOBase):
    """A file whose text goes through a pipe."""

    def __init__(self, sender: Connection):
        self._sender = sender

    def write(self, text: str) -> int:
        self._sender.send(text)
        return len(text)


def _call(sender: Connection, function: Callable, given: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a kernel's interrupt comes here too: the kernel decides
    try:
        with redirect_stdout(_Sent(sender)):
            message = function(*given), None
    except Exception as error:
        message = None, error
    sender.send(message)


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
