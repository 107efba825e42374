"""The loop around the step. What happens in a step is in `update`, what is looked at after it in `watch`."""

import time

from .interrupts import Interrupts
from .model import Model
from .processes import Processes
from .update import make_scaler, update
from .watch import Watch

_TIMED_STEPS = range(2, 7)  # the first one warms up


def run_loop(model: Model, watches: list[Watch], processes: Processes) -> None:
    """Step until every learner has ended.

    A stop file ends its own learner after the step, an interrupt ends all.

    Raises:
        KeyboardInterrupt: the kernel was interrupted; everything was saved first.
    """
    scaler = make_scaler(model)
    with Interrupts() as interrupts:
        for watch in watches:
            watch.begin()
        taken, started = 0, time.monotonic()
        while active := [watch for watch in watches if not watch.learner.ended]:
            losses = update(model, [watch.learner for watch in active], scaler, processes)
            taken += 1
            if taken == _TIMED_STEPS.start - 1:
                started = time.monotonic()
            if taken == _TIMED_STEPS.stop - 1 and processes.is_main:
                print(_minutes(active, (time.monotonic() - started) / (len(_TIMED_STEPS))))
            interrupted = processes.any(interrupts.asked)
            for watch, loss in zip(active, losses, strict=True):
                watch.after_step(loss, interrupted)
    if interrupts.asked:
        raise KeyboardInterrupt


def _minutes(watches: list[Watch], seconds: float) -> str:
    left = max(watch.learner.settings.max_train_steps - watch.learner.progress.step for watch in watches)
    return (
        f"{seconds:.2f} s a step: {left * seconds / 60:.1f} minutes at most, looking and samples not counted."
    )
