"""How long each loop takes to most of what there is to gain."""

from .ledger import Ledger, Measurement
from .plan import LONG_RUNS, OWN_RATE, RATES, SEEDS, SWEEP_SEEDS, Run, our_run, seeds_of, their_run
from .readings import best_rate, target_loss
from .rivals import RIVALS
from .runs import carry_out


def measure_gain(ledger: Ledger) -> None:
    """Long runs first: they say what there is to gain. Then ours, and the rivals by learning rate."""
    for run in (*LONG_RUNS, *map(our_run, SEEDS)):
        measured(ledger, run)
    for kind in RIVALS:
        for rate in RATES:
            for seed in seeds_of(kind) if rate == OWN_RATE else SWEEP_SEEDS:
                measured(ledger, their_run(kind, rate, seed))
        for seed in seeds_of(kind):
            measured(ledger, their_run(kind, best_rate(ledger.measurements, kind), seed))


def measured(ledger: Ledger, run: Run) -> Measurement:
    """The run's curve, from the ledger or carried out now."""
    return ledger.once(run.measurement, lambda: carry_out(run, target_loss(ledger.measurements)))
