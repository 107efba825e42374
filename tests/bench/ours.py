"""The trainer as the bench drives it: its step and nothing else."""

from helpers.concept.concept import Concept
from helpers.training.learner import Learner, make_scaler, update
from helpers.training.model import Model
from helpers.training.processes import Processes


class BareOurs:
    """Steps without looks, samples and files. The latents' cache is made first."""

    def __init__(self, concept: Concept, model: Model):
        self.model, self.processes = model, Processes()
        self.learner = Learner(concept, model, self.processes)
        self.scaler = make_scaler(model)

    def step(self) -> None:
        update(self.model, [self.learner], self.scaler, self.processes)
