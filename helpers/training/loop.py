"""The loop around the step. What happens in a step is in `update`, what is looked at after it in `watch`."""

import time

import torch

from .interrupts import Interrupts
from .model import Model
from .processes import Processes
from .update import update
from .watch import Watch


def run_loop(model: Model, watches: list[Watch], processes: Processes, scaler: torch.amp.GradScaler) -> bool:
    """Step until every learner has ended.

    A stop file ends its own learner after the step, an interrupt ends all.

    Returns:
        Whether it was interrupted; everything was saved then.
    """
    with Interrupts() as interrupts:
        for watch in watches:
            watch.begin()
        pace = Pace()
        while active := [watch for watch in watches if not watch.learner.ended]:
            losses = update(model, [watch.learner for watch in active], scaler, processes)
            pace.count(active, processes)
            interrupted = processes.any(interrupts.asked)
            for watch, loss in zip(active, losses, strict=True):
                watch.after_step(loss, interrupted)
    return interrupts.asked


class Pace:
    """Times the first steps, and says once how long the run may take."""

    TIMED = 5

    def __init__(self):
        self.steps, self.started = -1, 0.0  # the first step warms up

    def count(self, watches: list[Watch], processes: Processes) -> None:
        self.steps += 1
        if self.steps == 0:
            self.started = time.monotonic()
        if self.steps == self.TIMED and processes.is_main:
            seconds = (time.monotonic() - self.started) / self.TIMED
            left = max(watch.steps_left() for watch in watches) * seconds / 60
            print(f"{seconds:.2f} s a step: {left:.1f} minutes at most, looking and samples not counted.")
