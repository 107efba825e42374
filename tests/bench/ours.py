"""The trainer as the bench drives it: its step and nothing else."""

from helpers.concept.concept import Concept
from helpers.training.learner import Learner, Run, make_scaler, update
from helpers.training.model import Model
from helpers.training.processes import FreeCores, Processes


class BareOurs:
    """Steps without looks, samples and files. The latents' cache is made first."""

    def __init__(self, concept: Concept, model: Model):
        self.run = Run(model, Processes(), make_scaler(model), FreeCores(active=False))
        self.learner = Learner(concept, model, self.run.processes)

    def step(self) -> None:
        update(self.run, [self.learner])
