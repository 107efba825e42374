"""The trainer as the bench drives it: the functions that `train` is made of, one step at a time."""

import time

from helpers.concept.concept import Concept
from helpers.concept.embedding import Rows
from helpers.model.tokens import initializer_ids
from helpers.training.evaluate import HeldOutScore, fixed_loss, rank_initializers
from helpers.training.learner import Learner, make_scaler, update
from helpers.training.model import Model
from helpers.training.processes import Processes
from helpers.training.watch import Watch

from .setting import INITIALIZER
from .timing import Laps

CANDIDATES = (INITIALIZER, "brown", "tall", "leaves")


class BareOurs:
    """Steps and nothing else, for the time that a step takes. The latents' cache is made first."""

    def __init__(self, concept: Concept, model: Model):
        self.model, self.processes = model, Processes()
        self.learner = Learner(concept, model, self.processes)
        self.scaler = make_scaler(model)

    def step(self) -> None:
        self.update()

    def update(self) -> float:
        return update(self.model, [self.learner], self.scaler, self.processes)[0]

    def rows(self) -> Rows:
        return self.learner.copy_rows()


class Ours(BareOurs):
    """A whole run: initializers tried, fixed loss and held-out score, checkpoints, log.

    When it has stopped by itself its steps go on without these, so that its curve can be drawn on.

    Attributes:
        profile: what goes before the first step, and how many seconds it takes.
    """

    def __init__(self, concept: Concept, model: Model):
        started = time.monotonic()
        laps = Laps()
        super().__init__(concept, model)
        laps.end("latents encoded")
        best = rank_initializers(self.learner, model, CANDIDATES)[0].words
        self._start_from(best)
        laps.end("initializers tried")
        score = HeldOutScore(concept.changed(initializer_token=best), model)
        laps.end("held-out pictures made ready")
        concept.training_folder.mkdir()
        fixed = fixed_loss(self.learner, model)
        self.watch = Watch(self.learner, model, self.processes, fixed, score, started, self.scaler)
        self.watch.begin()
        laps.end("the first look")
        self.profile = laps.seconds

    @property
    def ended(self) -> bool:
        return self.learner.ended is not None

    @property
    def result(self) -> Rows:
        """The rows that the run kept."""
        return self.learner.progress.best.rows

    def step(self) -> None:
        loss = self.update()
        if not self.ended:
            self.watch.after_step(loss, interrupted=False)

    def _start_from(self, words: str) -> None:
        for learned, tokenizer in zip(self.learner.rows, self.model.components.tokenizers, strict=True):
            learned.start_from(initializer_ids(tokenizer, words, self.learner.concept.vectors))
