"""What a concept's training folder holds from before: to be gone on with, returned, or put aside."""

import hashlib
import json
import shutil
from pathlib import Path

from .. import places
from ..captions import captions_of
from ..concept import Concept
from ..images import image_paths
from .outcome import NAME as OUTCOME
from .outcome import Outcome

MADE_WITH = "made_with.json"

# Settings that may change between two sittings of the same run: its length, what is shown, the machine.
_MAY_CHANGE = {
    "max_train_steps",
    "stop_when_learned",
    "sample_every",
    "checkpoint_every",
    "num_processes",
    "gradient_checkpointing",
    "compile",
    "save_pipeline",
}


def finished(concept: Concept) -> Outcome | None:
    """The outcome of a run that has nothing left to do under the concept's settings, or None."""
    if not (concept.training_folder / OUTCOME).is_file() or not concept.embeds_path.is_file():
        return None
    outcome, settings = Outcome.load(concept), concept.training
    learned = outcome.ended == "learned" and settings.stop_when_learned
    full = outcome.ended in ("learned", "ceiling") and outcome.steps >= settings.max_train_steps
    return outcome if learned or full else None


def made_with(concept: Concept) -> dict:
    """All that decides how a run goes: the settings, each picture's fingerprint, captions, the weights.

    Raises:
        UserError: the concept has no pictures, or a caption can't be used.
    """
    settings = concept.model_dump(mode="json")
    settings["training"] = {
        name: value for name, value in settings["training"].items() if name not in _MAY_CHANGE
    }
    pictures = [hashlib.sha256(path.read_bytes()).hexdigest() for path in image_paths(concept)]
    weights = {"weights": places.miniature_mark()} if concept.base_model == "miniature" else {}
    captions = captions_of(concept)
    own = (
        {"captions": captions} if captions else {}
    )  # left out where there are none, as before there were any
    return {"concept": settings, "pictures": pictures, **own, **weights}


def is_another(concept: Concept, now: dict) -> bool:
    """Whether the training folder was made with something other than `now`, which `made_with` gave."""
    path = concept.training_folder / MADE_WITH
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) != now


def write_made_with(concept: Concept, now: dict) -> None:
    concept.training_folder.mkdir(parents=True, exist_ok=True)
    partial = concept.training_folder / f"{MADE_WITH}.partial"
    partial.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    partial.replace(concept.training_folder / MADE_WITH)


def put_aside(concept: Concept) -> Path | None:
    """Rename `training/` to `training-1/`, `-2/`, ... with the result in it, so that nothing is lost."""
    folder = concept.training_folder
    if not folder.is_dir():
        return None
    for result in concept.folder.glob("learned_embeds.*"):
        shutil.copy2(result, folder)
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return folder.rename(aside)
