"""Words beside the one that was typed: near ones that would do, and those that it collides with."""

import contextlib
import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .concept import Concept, saved_concepts
from .errors import UserError
from .tokens import check_placeholder, known_words

# They stand near everything, and teach nothing to start from.
_LINKS = {*"and are for from her his its not one that the their this two under with your".split()}


def nearest_words(tokenizer: Any, words: str, table: torch.Tensor | None = None, count: int = 6) -> list[str]:
    """Words of one token each that are near to what was typed, to start from in its place.

    A word that is one token is looked up by meaning: by the cosine between its row and the others', for
    the rows are what training starts from. A word that falls into pieces has no row, and its pieces' rows
    say little about it, so it is looked up by its spelling; then so is everything if there is no `table`.

    Args:
        words: a word or a phrase; of a phrase the words of one token come first.
        table: the model's rows, (tokens, width), as `load_word_table` reads them.
        count: how many at most.
    """
    typed = words.lower().split()
    known = known_words(tokenizer)
    whole = [word for word in typed if word in known]
    first = whole if len(typed) > 1 else []
    by_meaning = _near_rows(table, [known[word] for word in whole], known) if table is not None else []
    by_spelling = [
        near
        for word in typed
        if not by_meaning or word not in known
        for near in difflib.get_close_matches(word, known, cutoff=0.5)
    ]
    found = dict.fromkeys([*first, *by_spelling, *by_meaning])
    return [word for word in found if [word] != typed][:count]


def _near_rows(table: torch.Tensor, ids: Sequence[int], known: dict[str, int]) -> list[str]:
    if not ids:
        return []
    unit = nn.functional.normalize(table, dim=1)
    others = [word for word, number in known.items() if number not in ids and word not in _LINKS]
    cosines = unit[[known[word] for word in others]] @ unit[list(ids)].sum(dim=0)
    return [others[place] for place in cosines.topk(min(len(others), 16)).indices.tolist()]


def collisions(concept: Concept, tokenizer: Any) -> list[str]:
    """Sentences on what the placeholder collides with; empty where it stands alone.

    A word that the model has already; words that contain it, and would be cut where it stands in them;
    another concept's word, which can't be in the same prompt.
    """
    found = []
    for token in concept.placeholder_tokens:
        try:
            check_placeholder(tokenizer, token)
        except UserError as error:
            found.append(str(error))
    own = concept.placeholder_token
    inside = sorted(word for word in known_words(tokenizer) if own.lower() in word)
    if inside and not found:
        found.append(
            f"“{own}” is a part of words such as {', '.join(inside[:3])}, which would be cut there: write it "
            f"in brackets, for example <{own}>."
        )
    return found + [_taken(concept, other) for other in _others(concept)]


def _others(concept: Concept) -> list[Concept]:
    """The saved concepts of other names that have one of this one's tokens; a damaged one has none."""
    found = []
    for name in saved_concepts():
        with contextlib.suppress(UserError):
            found.append(Concept.load(name))
    own = {*concept.placeholder_tokens}
    return [one for one in found if one.name != concept.name and own & {*one.placeholder_tokens}]


def _taken(concept: Concept, other: Concept) -> str:
    return (
        f"The concept “{other.name}” has the word {other.placeholder_token} as well, and no prompt can hold "
        "both: that is right for a second try of the same thing; else choose another, for example "
        f"<{concept.name}-2>."
    )
