"""The processes of a run, one or several that share each batch, and their threads."""

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from typing import TypeVar

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env, reduce

from ..common.errors import UserError

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
        self._before = self._clocks()

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
        passed, idle, own = (now - then for now, then in zip(self._clocks(), self._before, strict=True))
        self._before = self._clocks()
        return self.cores - (idle + own) / passed

    def _clocks(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        return time.monotonic(), times.idle + getattr(times, "iowait", 0.0), time.process_time()


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
