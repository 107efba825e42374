"""A run, from its settings to the learned rows: `train` for one word, `train_many` for several at once."""

import errno
import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from ..common import places
from ..common.errors import UserError
from ..concept.concept import Concept
from ..model.base_model import save_pipeline
from .control import Interrupts, clear_request
from .evaluate import HeldOutScore, Scorer, fixed_loss
from .forecast import note_run
from .learner import Learner, make_scaler, update
from .model import Model, load_model
from .processes import Processes
from .records import (
    Outcome,
    finished,
    is_another,
    load_checkpoint,
    made_with,
    put_aside,
    write_made_with,
)
from .watch import Watch

# Settings of the shared batch and the shared model.
_SHARED = (
    "train_batch_size",
    "gradient_accumulation_steps",
    "timesteps_per_picture",
    "resolution",
    "mixed_precision",
    "gradient_checkpointing",
    "compile",
    "quantize",
)
_FULL = (
    "The GPU's memory is full: set train_batch_size to 1, or gradient_checkpointing, or quantize to “4bit”, "
    "and train again. It goes on from the last checkpoint where the settings allow it."
)
_NO_ROOM = (
    "The disk is full: make room on it, and train again. It goes on from the last checkpoint, which is whole."
)
_OTHER_ORDER = (
    "It was begun by an earlier version: from here on, pictures and sentences come in another order."
)
ConceptScorer = Callable[[Concept, Model], float]


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


def train_many(
    concepts: Sequence[Concept | str], *, fresh: bool = False, scorer: ConceptScorer | None = None
) -> list[Outcome]:
    """Teach several words at once on one frozen model, each batch mixed over the words.

    Each has its own rows, draws, log, stopping and result. A concept draws the same pictures, noise and
    sentences beside others as alone, so its result is the same but for rounding.

    Args:
        concepts: concepts, their names, or their folders.
        fresh, scorer: as for `train`.

    Raises:
        UserError: the concepts don't fit together, or one can't be trained; or, when the others have
            ended, one went astray (its last good rows were kept).
        KeyboardInterrupt: the kernel was interrupted; everything was saved first.
    """
    started = time.monotonic()
    concepts = [as_concept(concept) for concept in concepts]
    _check_fit(concepts)
    processes = Processes()
    try:
        prepared = [_prepare(concept, fresh) for concept in concepts] if processes.is_main else None
        todo = [concept for concept, open_ in zip(concepts, processes.agree(prepared), strict=True) if open_]
        if todo:
            _train(todo, processes, scorer, started)
        if processes.is_main:
            _save_pipelines(concepts, todo)
        processes.wait()
    finally:
        processes.close()
    outcomes = [Outcome.load(concept) for concept in concepts]
    for outcome in outcomes:
        if outcome.ended == "failed":
            raise UserError(f"{outcome.concept}: {outcome.reason}")
    return outcomes


def as_concept(concept: Concept | str | Path) -> Concept:
    """A concept by its name or the path of its folder; a Concept is saved as it is."""
    if isinstance(concept, Concept):
        concept.save()
        return concept
    path = Path(concept)
    if len(path.parts) > 1 and path.resolve().parent != places.concepts_root().resolve():
        raise UserError(
            f"“{path}” is not in {places.concepts_root()}: set {places.ROOT_VARIABLE} to its parent folder."
        )
    return Concept.load(path.name)


def _check_fit(concepts: list[Concept]) -> None:
    first, words = concepts[0], set()
    for concept in concepts:
        if concept.placeholder_token in words:
            raise UserError(
                f"“{concept.placeholder_token}” is given twice: name each concept once, and give each a "
                "placeholder_token of its own."
            )
        words.add(concept.placeholder_token)
    for concept in concepts[1:]:
        if concept.base_model != first.base_model:
            raise UserError(f"{first.name} and {concept.name} have different base models: train them apart.")
        for name in _SHARED:
            if getattr(concept.training, name) != getattr(first.training, name):
                raise UserError(f"Give {first.name} and {concept.name} the same {name}, or train them apart.")


def _prepare(concept: Concept, fresh: bool) -> bool:
    """Put aside what can't be gone on with; whether there is something to do."""
    now = made_with(concept)
    another = is_another(concept, now)
    if not fresh and not another and finished(concept):
        return False
    if fresh or another:
        aside = put_aside(concept)
        if another and not fresh:
            print(f"The settings, pictures or captions have changed: the former run is now in {aside.name}/.")
    write_made_with(concept, now)
    clear_request(concept.training_folder)  # one left from before; one that comes now counts
    return True


def _train(
    concepts: list[Concept], processes: Processes, scorer: ConceptScorer | None, started: float
) -> None:
    """Train, and leave nothing on the GPU.

    What is raised is raised when the model is gone: a notebook keeps its last error, and with it all
    that the functions in the traceback hold.
    """
    problem, interrupted = "", False
    try:
        interrupted = _run(concepts, processes, scorer, started)
    except torch.cuda.OutOfMemoryError:
        problem = _FULL
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        problem = _NO_ROOM
    gc.collect()
    if problem:
        raise UserError(problem)
    if interrupted:
        raise KeyboardInterrupt


def _run(concepts: list[Concept], processes: Processes, scorer: ConceptScorer | None, started: float) -> bool:
    """Load the model and step to the end; whether it was interrupted."""
    announce = print if processes.is_main else None
    model = load_model(concepts[0], processes.device, announce, words=len(concepts))
    scaler = make_scaler(model)
    watches = [_watch(concept, model, processes, scorer, started, scaler) for concept in concepts]
    if processes.is_main and len(concepts) == 1:  # several share their steps
        note_run(concepts[0])
    return run_loop(model, watches, processes, scaler)


def _watch(
    concept: Concept,
    model: Model,
    processes: Processes,
    scorer: ConceptScorer | None,
    started: float,
    scaler: torch.amp.GradScaler,
) -> Watch:
    """A learner, where its last checkpoint left it, and what looks after it."""
    learner = Learner(concept, model, processes)
    judge: Scorer = partial(scorer, concept) if scorer else HeldOutScore(concept, model)
    fixed = fixed_loss(learner, model)
    state = load_checkpoint(concept.training_folder)
    if state:
        learner.load_state_dict(state["learner"])
        if state["scaler"]:  # empty where the machine before this one needed no loss scaling
            scaler.load_state_dict(state["scaler"])
        if processes.is_main and "batches" not in state["learner"]["draws"]:
            print(f"{concept.name}: {_OTHER_ORDER}")
    return Watch(learner, model, processes, fixed, judge, started, scaler)


def run_loop(model: Model, watches: list[Watch], processes: Processes, scaler: torch.amp.GradScaler) -> bool:
    """Step until every learner has ended: `update` is a step, and each watch looks at what came of it.

    A stop file ends its own learner after the step, an interrupt ends all.

    Returns:
        Whether it was interrupted; everything was saved then.
    """
    with Interrupts() as interrupts:
        for watch in watches:
            watch.begin()
        stopwatch = Stopwatch()
        while active := [watch for watch in watches if not watch.learner.ended]:
            losses = update(model, [watch.learner for watch in active], scaler, processes)
            stopwatch.count(active, processes)
            interrupted = processes.any(interrupts.asked)
            for watch, loss in zip(active, losses, strict=True):
                watch.after_step(loss, interrupted)
    return interrupts.asked


class Stopwatch:
    """Times the first steps, and says once how long the run may take."""

    TIMED = 5

    def __init__(self):
        self.steps, self.started = -1, 0.0  # the first step warms up

    def count(self, watches: list[Watch], processes: Processes) -> None:
        self.steps += 1
        if self.steps == 0:
            self.started = time.monotonic()
        if self.steps == self.TIMED and processes.is_main:
            seconds = (time.monotonic() - self.started) / self.TIMED
            left = max(watch.steps_left() for watch in watches) * seconds / 60
            print(f"{seconds:.2f} s a step: {left:.1f} minutes at most, looking and samples not counted.")


def _save_pipelines(concepts: list[Concept], trained: list[Concept]) -> None:
    """Where it is wanted: for a word that is new, or that has none yet."""
    for concept in concepts:
        is_there = (concept.folder / "pipeline").is_dir()
        if concept.training.save_pipeline and (concept in trained or not is_there):
            save_pipeline(concept)
