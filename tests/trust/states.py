"""Each notebook in each wrong state: it runs, or says in one sentence what mends it."""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.dataset.images import add_images, default_sources
from helpers.series.run import notebooks, other_notebooks, run_notebook
from tests.known_words import known_rows

NAME = "wrong"
_SHORT = {"max_train_steps": 2, "evaluate_every": 2, "sample_every": 0, "checkpoint_every": 2}
# What mends a state: a notebook, a setting, or a file that can be deleted.
_MENDS = re.compile(r"notebook \d|base_model|BASE_MODEL|CONCEPT|concept\.json|add .* pictures|choose ")


def _nothing() -> None:
    pass


def _pictures() -> None:
    add_images(NAME, default_sources("miniature"), "miniature")


def _settings(**more) -> Concept:
    concept = Concept.make(NAME, training=_SHORT, **more)
    concept.save()
    return concept


def _learned(**more) -> Concept:
    _pictures()
    concept = _settings(**more)
    save_result(concept, known_rows("miniature", "red toy"))
    return concept


def _untrained() -> None:
    _pictures()
    _settings()


def _model_gone() -> None:
    _learned(base_model="/no/such/model")


def _newer() -> None:
    path = _learned().save()
    path.write_text(json.dumps({**json.loads(path.read_text()), "depth": 3}))


def _damaged() -> None:
    path = _learned().save()
    path.write_text(path.read_text()[:40])


def _word_damaged() -> None:
    _learned().embeds_path.write_bytes(b"half")


STATES: dict[str, Callable] = {
    "nothing": _nothing,
    "pictures only": _pictures,
    "settings only": _settings,
    "no learned word": _untrained,
    "base model gone": _model_gone,
    "settings of a newer version": _newer,
    "settings damaged": _damaged,
    "word damaged": _word_damaged,
}


def states() -> dict[str, int]:
    """Run all notebooks in all wrong states.

    Returns:
        `runs` of a notebook in a state; `stopped`, how many of them ended in a sentence.

    Raises:
        AssertionError: one showed a traceback, or a sentence that names nothing to mend.
    """
    said = []
    for where, sentence in chain.from_iterable(map(outcomes, STATES)):
        print(f"{where}: {sentence or 'ran'}", flush=True)  # it takes a while
        said.append((where, sentence))
    wrong = [f"{where}: {sentence}" for where, sentence in said if not is_clear(sentence)]
    assert not wrong, "\n".join(wrong)
    return {"runs": len(said), "stopped": sum(bool(sentence) for _, sentence in said)}


def outcomes(state: str) -> Iterator[tuple[str, str]]:
    """For each notebook: what it is, and the sentence that it stopped with, empty where it ran."""
    for notebook in [*other_notebooks(), *notebooks()]:
        with tempfile.TemporaryDirectory() as root:
            os.environ[places.ROOT_VARIABLE] = root
            STATES[state]()
            yield f"{notebook.stem}, {state}", _stopped(notebook, Path(root) / "ran")


def is_clear(sentence: str) -> bool:
    """Whether a notebook ran, or stopped with a sentence that names what mends it."""
    if not sentence:
        return True
    return bool(_MENDS.search(sentence)) and not re.search(r"\b\w+Error: ", sentence)


def _stopped(notebook: Path, output: Path) -> str:
    try:
        run_notebook(notebook, output, {"CONCEPT": NAME})
    except UserError as error:
        return str(error)
    return ""
