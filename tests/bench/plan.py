"""Which runs are made, and at which of their steps somebody looks."""

from dataclasses import dataclass

SEEDS = range(5)
DIFFUSERS_SEEDS = range(3)  # its loop is the source's but for the old rows: fewer runs tell as much
SWEEP_SEEDS = range(1)
RATES = (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
OWN_RATE = RATES[0]  # the source's
OWN_STEPS = 1000
AT_MOST = 5000
OUR_STEPS = 400
WORD_COUNTS = (1, 4, 16)
LONG_SEED, LONG_STEPS = 99, 1200

# The steps whose rows are judged, by 64 pictures each.
OUR_LOOKS = (5, 10, 15, 20, 25, 50, 100, 200)
THEIR_LOOKS = (10, 20, 30, 50, 70, 100, 200, 400, 700, 1000)


@dataclass(frozen=True)
class Run:
    """One run of one loop.

    Attributes:
        kind: `ours`, or one of `rivals.RIVALS`.
        steps: after these it ends, or
        at_most: goes on up to these, until its loss is down to the target.
        rate: the learning rate; None: our default.
    """

    kind: str
    seed: int
    steps: int
    rate: float | None = None
    at_most: int = 0

    @property
    def name(self) -> str:
        """For example `source/5e-04/seed0`, `ours/seed0`."""
        rate = [f"{self.rate:.0e}"] if self.rate else []
        return "/".join([self.kind, *rate, f"seed{self.seed}"])

    @property
    def measurement(self) -> str:
        """Its curve's name in the ledger."""
        return f"runs/{self.name}"

    def score(self, look: int | str) -> str:
        """In the ledger, the name of the judge's score of its rows at a step, or of its `result`."""
        return f"scores/{self.name}/{look}"

    def looks_after(self, step: int) -> bool:
        """Whether the loss is measured here: often while it falls, seldom later."""
        if self.kind == "ours":
            return step % (5 if step <= 100 else 25) == 0
        return step % (10 if step <= 200 else 100 if step <= OWN_STEPS else 200) == 0

    def goes_on(self, step: int, loss: float, target: float | None) -> bool:
        reached = target is not None and loss <= target
        return step < self.steps or (step < self.at_most and not reached)


def alone(seed: int) -> str:
    """In the ledger, the name of a short run of one word."""
    return f"many/alone/{seed}"


def together(count: int) -> str:
    """In the ledger, the name of a short run of many words."""
    return f"many/{count}"


def seeds_of(kind: str) -> range:
    """The seeds of a rival whose medians are reported."""
    return SEEDS if kind == "source" else DIFFUSERS_SEEDS


def our_run(seed: int) -> Run:
    return Run("ours", seed, OUR_STEPS)


def their_run(kind: str, rate: float, seed: int) -> Run:
    """1,000 steps; the source's loop at its own rate goes on, up to a limit, until it gets there."""
    goes_on = kind == "source" and rate == OWN_RATE
    return Run(kind, seed, OWN_STEPS, rate, at_most=AT_MOST if goes_on else 0)


# What the best of these comes down to is what there is to gain.
LONG_RUNS = (
    Run("ours", LONG_SEED, LONG_STEPS),
    Run("source", LONG_SEED, LONG_STEPS, rate=5e-3),
    Run("source", LONG_SEED, LONG_STEPS, rate=1e-2),
)
