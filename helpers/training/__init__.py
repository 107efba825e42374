"""Teach a word to a frozen Stable Diffusion: `train(concept)`."""

from ..concept import Concept
from .many import ConceptScorer, train_many
from .outcome import Outcome

__all__ = ["Outcome", "train", "train_many"]


def train(concept: Concept | str, fresh: bool = False, scorer: ConceptScorer | None = None) -> Outcome:
    """Learn the word of a concept and write `learned_embeds.safetensors` into its folder.

    It loads the base model itself, in whatever process it is called, so that a notebook can pass it
    to `accelerate.notebook_launcher` without having touched a GPU. Called again, it goes on where it
    was stopped, or returns what is done.

    Args:
        concept: a Concept, its name, or the path of its folder.
        fresh: start over; what was there is renamed, not deleted.
        scorer: called with the concept and the model (the rows as they are in it) at each checkpoint;
            the checkpoint with the highest value is the result. `HeldOutScore` if None.

    Raises:
        UserError: something is missing or can't be used, or the run went astray; it says what to do.
        KeyboardInterrupt: the kernel was interrupted; everything was saved first.
    """
    return train_many([concept], fresh=fresh, scorer=scorer)[0]
