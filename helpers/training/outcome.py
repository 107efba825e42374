"""What came of a run, as a notebook can read it later: `training/outcome.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..concept import Concept
from ..errors import UserError

NAME = "outcome.json"


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        concept: its name.
        ended: `learned`, `ceiling` (max_train_steps), `stopped` (by a person) or `failed`.
        reason: the same as a sentence.
        steps: optimizer steps taken, over all sittings.
        best_step: the step whose rows are the result, 0 if nothing was better than the initializer.
        seconds: time taken in all sittings, loading included.
        first_fixed_loss, best_fixed_loss: the initializer's, and that of the result (at the nearest
            step where it was measured).
    """

    concept: str
    ended: Literal["learned", "ceiling", "stopped", "failed"]
    reason: str
    steps: int
    best_step: int
    seconds: float
    first_fixed_loss: float
    best_fixed_loss: float

    def save(self, folder: Path) -> None:
        partial = folder / f"{NAME}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / NAME)

    @classmethod
    def load(cls, concept: Concept) -> "Outcome":
        """Read what the last run of a concept left.

        Raises:
            UserError: it was never trained to an end.
        """
        path = concept.training_folder / NAME
        if not path.is_file():
            raise UserError(f"“{concept.name}” has not been trained yet: run notebook 4 first.")
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def __str__(self) -> str:
        return (
            f"{self.concept}: {self.steps} steps in {self.seconds / 60:.1f} minutes. {self.reason} "
            f"Kept: step {self.best_step}, fixed loss {self.best_fixed_loss:.4f} "
            f"(the initializer's {self.first_fixed_loss:.4f})."
        )
