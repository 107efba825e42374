"""A run from its settings to the learned rows: `train` for one word, `train_many` for several at once."""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import compress
from pathlib import Path

from ..common import places
from ..common.errors import UserError
from ..common.files import locked
from ..concept.concept import Concept, settings_where
from ..concept.embedding import update_result_key
from ..model.base_model import save_pipeline
from .forecast import memory_of_run, note_circumstances
from .learner import Run, open_run, update
from .processes import Interrupts, Processes, in_sentences
from .records import (
    RunSummary,
    archive_run,
    clear_request,
    finished,
    inputs_changed,
    read_log,
    run_inputs,
    save_inputs,
    steps_per_second,
)
from .watch import Scorer, Watch

TIMED = 6  # steps after which a run says how long it may take


def train(concept: Concept | str, fresh: bool = False, scorer: Scorer | None = None) -> RunSummary:
    """Learn the word of a concept and write `learned_embeds.safetensors` into its folder.

    It loads the base model itself, so that a notebook can pass it to `accelerate.notebook_launcher` without
    having touched a GPU. Called again, it resumes a run that was stopped, or returns the summary of one that
    is finished.

    Args:
        concept: a Concept, its name, or the path of its folder.
        fresh: start over; the previous run is renamed, not deleted.
        scorer: called with the concept and the model, which has the current rows, at each checkpoint; the
            checkpoint with the highest value is the result. `HeldOutScore` if None.

    Raises:
        UserError: something is missing or can't be used, or the run diverged; it says what to do.
        KeyboardInterrupt: the kernel was interrupted; everything was saved first.
    """
    return train_many([concept], fresh=fresh, scorer=scorer)[0]


@in_sentences
def train_many(
    concepts: Sequence[Concept | str], *, fresh: bool = False, scorer: Scorer | None = None
) -> list[RunSummary]:
    """Learn several words at once on one frozen model, with batches that mix the words.

    Each has its own rows, random draws, log, end and result. A concept draws the same pictures, noise and
    sentences as it would alone, so that its result is the same but for rounding.

    Args:
        concepts: concepts, their names, or their folders.
        fresh, scorer: as for `train`.

    Raises:
        UserError: the concepts don't fit together, or one can't be trained; or, after the others have
            ended, one diverged (its last good rows were kept).
        KeyboardInterrupt: the kernel was interrupted; everything was saved first.
    """
    started = time.monotonic()
    concepts = [as_concept(concept) for concept in concepts]
    _check_fit(concepts)
    with run_processes(concepts) as processes:
        is_due = [_prepare(concept, fresh) for concept in concepts] if processes.is_main else None
        todo = [*compress(concepts, processes.agree(is_due))]
        interrupted = todo and _run(todo, processes, scorer, started)
        gc.collect()  # before anything is raised: a notebook keeps its last error and all that it refers to
        if interrupted:
            raise KeyboardInterrupt
        for concept in concepts if processes.is_main else []:
            _save_pipeline(concept, is_new=concept in todo)
        processes.wait()
    summaries = [RunSummary.load(concept) for concept in concepts]
    for summary in summaries:
        if summary.ended == "failed":
            raise UserError(f"{summary.concept}: {summary.reason}")
    return summaries


def as_concept(concept: Concept | str | Path) -> Concept:
    """A concept by its name or the path of its folder; a Concept is saved and returned."""
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
    first, *others = concepts
    words = [concept.placeholder_token for concept in concepts]
    if twice := [word for word in words if words.count(word) > 1]:
        raise UserError(
            f"“{twice[0]}” is given twice: name each concept once, and give each a placeholder_token of its "
            "own."
        )
    for concept in others:
        if concept.base_model != first.base_model:
            raise UserError(f"{first.name} and {concept.name} have different base models: teach them apart.")
        for name in settings_where(shared=True):
            if getattr(concept.training, name) != getattr(first.training, name):
                raise UserError(f"Give {first.name} and {concept.name} the same {name}, or teach them apart.")


@contextmanager
def run_processes(concepts: Sequence[Concept]) -> Iterator[Processes]:
    """The processes of a run, which locks its concepts: no other run, renaming or deletion meanwhile.

    Raises:
        UserError: one of the concepts is locked by another run.
    """
    refusal = "“{name}” is being learned already, by {{}}: press Stop there first."
    with closing(Processes()) as processes, ExitStack() as stack:
        for concept in concepts if processes.is_main else []:
            stack.enter_context(locked(concept.lock_path, refusal.format(name=concept.name)))
        yield processes


def _prepare(concept: Concept, fresh: bool) -> bool:
    """Archive a run that can't be resumed; False if the concept's run is finished."""
    clear_request(concept.training_folder)  # an old one; one that is made from now on counts
    inputs = run_inputs(concept)
    changed = inputs_changed(concept, inputs)
    if not fresh and not changed and finished(concept):
        update_result_key(concept)
        return False
    if fresh or changed:
        archived = archive_run(concept)
        if changed and not fresh:
            print(
                f"The settings, pictures or captions have changed: the last run is now in {archived.name}/."
            )
    save_inputs(concept, inputs)
    return True


def _run(concepts: list[Concept], processes: Processes, scorer: Scorer | None, started: float) -> bool:
    """Load the model and train to the end; True if it was interrupted."""
    if processes.is_main:
        print(memory_of_run(concepts[0], processes.device, words=len(concepts)))
    with open_run(concepts[0], processes) as run:
        watches = [Watch(concept, run, scorer, started) for concept in concepts]
        if processes.is_main and len(concepts) == 1:  # several share their steps
            note_circumstances(concepts[0])
        return _step_to_the_end(run, watches)


def _step_to_the_end(run: Run, watches: list[Watch]) -> bool:
    """Take steps by `update`, each followed by the watches' `after_step`, until every learner has ended.

    A stop file ends its own learner after the step, an interrupt ends all; both save everything first.
    """
    with Interrupts() as interrupts:
        for watch in watches:
            watch.begin()
        taken = 0
        while active := [watch for watch in watches if not watch.ended]:
            losses = update(run, [watch.learner for watch in active])
            interrupted = run.processes.any(interrupts.asked)
            for watch, loss in zip(active, losses, strict=True):
                watch.after_step(loss, interrupted)
            taken += 1
            if taken == TIMED and run.processes.is_main:
                _say_pace(active)
            if taken % 10 == 0:
                run.cores.adjust()
    return interrupts.asked


def _say_pace(watches: list[Watch]) -> None:
    """Print how long the run may take, by its first steps."""
    rate = steps_per_second(read_log(watches[0].concept.training_folder))
    if rate:
        left = max(watch.steps_left() for watch in watches) / rate / 60
        print(f"{1 / rate:.2f} s a step: {left:.1f} minutes at most, evaluation and samples not counted.")


def _save_pipeline(concept: Concept, is_new: bool) -> None:
    """Save the whole pipeline if the settings ask for it, and the result is new or has none yet."""
    if concept.training.save_pipeline and (is_new or not (concept.folder / "pipeline").is_dir()):
        save_pipeline(concept)
