"""Whole runs: how far the loss has fallen after how many seconds."""

from collections.abc import Callable

from safetensors.torch import save_file

from helpers.concept.concept import Concept
from helpers.concept.embedding import Rows

from .ledger import Measurement
from .ours import Ours
from .plan import Run
from .rivals import RIVALS, SourceLoop
from .setting import SharedLoss, make_concept, our_model, rows_path, their_parts
from .timing import Clock

Contender = Ours | SourceLoop


def carry_out(run: Run, target: float | None = None) -> Measurement:
    """Train, and look at the loss that all runs share; the clock stands still meanwhile.

    The clock runs while latents are cached and initializers tried, not while the model is loaded.

    Returns:
        `steps`, `seconds` and `losses`, one a look, the first before any step; for ours also
        `stopped`, the step and second at which it ended by itself, and `before_step_1`.
    """
    concept = make_concept(f"bench-{run.name.replace('/', '-')}", **_settings(run))
    curve, begin = _Curve(run, SharedLoss(concept)), _beginner(run, concept)
    with curve.clock:
        contender = begin()
    if isinstance(contender, Ours):
        curve.values["before_step_1"] = contender.profile
    curve.look(0, contender)
    step = 0
    while run.goes_on(step, curve.values["losses"][-1], target):
        with curve.clock:
            contender.step()
        step += 1
        curve.after_step(step, contender)
    return curve.values


class _Curve:
    """A run as it is seen from outside."""

    def __init__(self, run: Run, loss_of: SharedLoss):
        self.run, self.loss_of, self.clock = run, loss_of, Clock()
        self.values: Measurement = {"steps": [], "seconds": [], "losses": []}

    def after_step(self, step: int, contender: Contender) -> None:
        if isinstance(contender, Ours) and contender.ended and "stopped" not in self.values:
            self.values["stopped"] = {"step": step, "seconds": round(self.clock.seconds, 3)}
            self._save("result", contender.result)
        if self.run.looks_after(step):
            self.look(step, contender)

    def look(self, step: int, contender: Contender) -> None:
        self.values["steps"].append(step)
        self.values["seconds"].append(round(self.clock.seconds, 3))
        self.values["losses"].append(round(self.loss_of(contender.model), 7))
        self._save(step, contender.rows())

    def _save(self, look: int | str, rows: Rows) -> None:
        path = rows_path(self.run.name, look)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"rows": rows[0].contiguous()}, path)


def _settings(run: Run) -> dict:
    if run.kind != "ours":
        return {}
    return {"seed": run.seed, "max_train_steps": run.steps, "learning_rate": run.rate}


def _beginner(run: Run, concept: Concept) -> Callable[[], Contender]:
    """What begins the run, with the model loaded already."""
    if run.kind == "ours":
        model = our_model(concept)
        return lambda: Ours(concept, model)
    parts = their_parts()
    return lambda: RIVALS[run.kind](parts, concept, run.rate, run.seed)
