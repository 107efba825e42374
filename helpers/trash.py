"""Deleting a concept: it goes to a folder that is not shown, from where it can be brought back."""

import shutil
from pathlib import Path

from . import places
from .errors import UserError
from .overview import concept_folder, in_bytes, overview
from .training.resume import check_at_rest

FOLDER = ".trash"


def delete_concept(name: str, sure: bool = False) -> str:
    """Move a concept's folder to `.trash/` in the root of concepts; asked once more before.

    Args:
        sure: False asks, and changes nothing.

    Returns:
        The question, or what was done.

    Raises:
        UserError: there is no such concept, or its word is being learned right now.
    """
    folder = concept_folder(name)
    check_at_rest(folder)
    if not sure:
        return f'{question(name)} If you mean it: delete_concept("{name}", sure=True).'
    target = _trash() / str(1 + max(map(int, _numbers()), default=0)) / name
    target.parent.mkdir(parents=True)
    folder.rename(target)
    return f'{name} is in the trash: restore_concept("{name}") brings it back.'


def question(name: str) -> str:
    """What deleting a concept would do, as a question that names what there is to lose.

    Raises:
        UserError: there is no such concept.
    """
    one = overview(name)
    learned = f" and the learned word {one.concept.placeholder_token}" if one.state == "learned" else ""
    return (
        f"Delete {name}, {one.pictures} picture(s){learned}, {in_bytes(one.size)}? It goes to the trash "
        f"({places.concepts_root().name}/{FOLDER}/), and can be brought back until you empty that."
    )


def restore_concept(name: str) -> str:
    """Bring back the concept of that name that was deleted last.

    Raises:
        UserError: the trash has none of that name, or another one has the name now.
    """
    found = [path for path in in_trash() if path.name == name]
    if not found:
        there = ", ".join(sorted({path.name for path in in_trash()})) or "(it is empty)"
        raise UserError(f"The trash has no concept “{name}”: choose one of these: {there}.")
    target = places.concepts_root() / name
    if target.exists():
        raise UserError(f"There is another concept “{name}” now: rename that first.")
    found[-1].rename(target)
    found[-1].parent.rmdir()
    return f"{name} is back."


def in_trash() -> list[Path]:
    """The folders of deleted concepts, the one deleted last at the end."""
    return [
        folder for number in sorted(_numbers(), key=int) for folder in sorted((_trash() / number).iterdir())
    ]


def empty_trash(sure: bool = False) -> str:
    """Erase what was deleted, for good; asked once more before.

    Args:
        sure: False asks, and changes nothing.

    Returns:
        The question, or what was done.
    """
    names = [path.name for path in in_trash()]
    if not names:
        return "The trash is empty."
    if not sure:
        return f"{erasing_question()} If you mean it: empty_trash(sure=True)."
    shutil.rmtree(_trash())
    return f"Erased: {', '.join(names)}."


def erasing_question() -> str:
    """What emptying the trash would do, as a question."""
    size = sum(path.stat().st_size for path in _trash().rglob("*") if path.is_file())
    names = ", ".join(path.name for path in in_trash())
    return f"Erase {names} ({in_bytes(size)}) for good? Nothing brings them back."


def _trash() -> Path:
    return places.concepts_root() / FOLDER


def _numbers() -> list[str]:
    """Each deleted concept lies in a folder of its own, so that two of one name don't meet."""
    return [path.name for path in _trash().glob("*") if path.name.isdigit()]
