"""The time of a step on the miniature."""

from .ledger import Ledger
from .ours import BareOurs
from .rivals import RIVALS
from .setting import make_concept, our_model, their_parts
from .timing import seconds_of, side_by_side

ROUNDS, IN_TURN = 20, 10
_WARM_UP = 3


def measure_steps(ledger: Ledger) -> None:
    ledger.once("steps", step_seconds)


def measure_compiled(ledger: Ledger) -> None:
    ledger.once("steps/compiled", compiled_seconds)


def step_seconds(rounds: int = ROUNDS, in_turn: int = IN_TURN) -> dict:
    """Seconds a step of both rivals and ours at batch 1, and of ours at its default batch."""
    default = our_steps("ours")
    contenders = {**_rivals(), "ours_batch1": our_steps("ours-1", train_batch_size=1), "ours": default}
    steps = {name: contender.step for name, contender in contenders.items()}
    batch = default.learner.settings.train_batch_size
    return {"batch": batch, "seconds": side_by_side(steps, rounds, in_turn)}


def compiled_seconds(rounds: int = ROUNDS, in_turn: int = IN_TURN) -> dict:
    """The same for our step at batch 1 with `compile`, and the seconds of its warm-up."""
    ours = our_steps("ours-compiled", train_batch_size=1, compile=True)
    warm_up = sum(seconds_of(ours.step) for _ in range(_WARM_UP))
    steps = {"source": _rivals()["source"].step, "ours_compiled": ours.step}
    return {"warm_up": warm_up, "seconds": side_by_side(steps, rounds, in_turn)}


def our_steps(name: str, **training) -> BareOurs:
    concept = make_concept(name, **training)
    return BareOurs(concept, our_model(concept))


def _rivals() -> dict:
    return {name: loop(their_parts(), make_concept(name)) for name, loop in RIVALS.items()}
