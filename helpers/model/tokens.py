"""A new word: its tokens in the tokenizer, its rows in the text encoder, and nothing else changed."""

import contextlib
import difflib
import html
import re
from collections.abc import Sequence
from typing import Any

import torch
from IPython.display import HTML
from torch import nn

from ..common.errors import UserError
from ..concept.concept import Concept, saved_concepts

_WORD_END = "</w>"
_COLOURS = ("#cfe8ff", "#ffe2c6", "#d5f2d0", "#f6d3ea", "#fff3b0")


class LearnedRows(nn.Module):
    """A text encoder's embedding look-up with a few rows of its own.

    It stands in the place of the token embedding (`nn.Embedding`, or another `LearnedRows`), and asks
    it for every token but the new ones. The table keeps its size and its values; only `rows` is
    trained. That is textual inversion's own formulation (Gal et al. 2022, arXiv 2208.01618, section
    4.1: the embedding v* is all that is optimized), without the whole table in the optimizer.

    Attributes:
        rows: float32 parameter of shape (vectors, width). Convert the encoder to another format
            before installing: `.to(dtype)` would take the rows along.
        ids: the token of each row, one run of consecutive numbers.
    """

    def __init__(self, table: nn.Module, ids: Sequence[int], initializer_ids: Sequence[int]):
        super().__init__()
        self.table = table
        self.ids = list(ids)
        self.rows = nn.Parameter(self._copies(initializer_ids))

    @property
    def weight(self) -> torch.Tensor:
        """The untouched table, (entries, width)."""
        return self.table.weight

    @torch.no_grad()
    def start_from(self, initializer_ids: Sequence[int]) -> None:
        """Set each row to the table's row of the token given for it."""
        self.rows.copy_(self._copies(initializer_ids))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Token ids (...) to embeddings (..., width) in the table's format."""
        row = input_ids - self.ids[0]
        is_new = (row >= 0) & (row < len(self.ids))
        old = self.table(input_ids.masked_fill(is_new, 0))
        places = is_new.nonzero(as_tuple=True)
        new = nn.functional.embedding(row[places], self.rows)
        return old.index_put(places, new.to(old.dtype))

    def _copies(self, initializer_ids: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor(initializer_ids, device=self.weight.device)
        return self.weight.detach()[ids].float()


def install_rows(
    tokenizer: Any, text_encoder: nn.Module, tokens: Sequence[str], initializer_ids: Sequence[int]
) -> LearnedRows:
    """Give a tokenizer new tokens and its text encoder a row for each.

    For several words in one run pass all their tokens at once (one look-up), or call it again for
    each word (each has its own `rows`).

    Args:
        tokens: one a vector, as `Concept.placeholder_tokens` names them.
        initializer_ids: one a token: the token whose row it starts from.

    Returns:
        The module now in the encoder's look-up; its `rows` are the only thing with a gradient.

    Raises:
        UserError: the tokenizer has one of the tokens already; then nothing was changed.
    """
    for token in tokens:
        check_placeholder(tokenizer, token)
    tokenizer.add_tokens(list(tokens))
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    learned = LearnedRows(text_encoder.get_input_embeddings(), ids, initializer_ids)
    text_encoder.set_input_embeddings(learned)
    return learned


def expand_prompt(prompt: str, tokens: Sequence[str]) -> str:
    """Write out a word of several vectors: `<g>` becomes `<g> <g>_1 <g>_2`.

    The same as `maybe_convert_prompt` of diffusers' `TextualInversionLoaderMixin`, so that a prompt
    means in training what it means in a pipeline.
    """
    return prompt.replace(tokens[0], " ".join(tokens))


def check_placeholder(tokenizer: Any, word: str) -> None:
    """Make sure that a word is new to the tokenizer.

    Raises:
        UserError: the tokenizer has it, so that teaching it would need another name.
    """
    vocabulary = tokenizer.get_vocab()
    if not {word, word.lower(), word.lower() + _WORD_END}.isdisjoint(vocabulary):
        raise UserError(
            f"The base model knows “{word}” already: choose another placeholder token, "
            f"for example <my-{word.strip('<>')}>."
        )


def initializer_ids(tokenizer: Any, words: str, vectors: int) -> list[int]:
    """The token that each vector starts from.

    A phrase of k tokens is spread in order over more vectors: vector i starts from token
    floor(i * k / vectors), so that with 4 vectors `red toy` gives red, red, toy, toy.

    Args:
        words: the initializer: a word, or a phrase where there are several vectors.

    Returns:
        `vectors` ids.

    Raises:
        UserError: the tokenizer cuts `words` into more tokens than there are vectors; the sentence
            names words that would do.
    """
    ids = _ids(tokenizer, words)
    if not ids:
        raise UserError("Name a word that is near to what you teach as initializer token, for example toy.")
    if len(ids) > vectors:
        parts = ", ".join(piece for piece, _ in pieces(tokenizer, words))
        raise UserError(
            f"“{words}” is {len(ids)} tokens ({parts}): set "
            f"vectors to {len(ids)}, or start from one of these: {', '.join(_would_do(tokenizer, words))}."
        )
    return [ids[index * len(ids) // vectors] for index in range(vectors)]


def check_words(concept: Concept, tokenizers: Sequence[Any]) -> None:
    """Make sure that a concept's placeholder and initializer can be used with a model's tokenizers.

    Raises:
        UserError: see `check_placeholder` and `initializer_ids`.
    """
    for tokenizer in tokenizers:
        for token in concept.placeholder_tokens:
            check_placeholder(tokenizer, token)
        initializer_ids(tokenizer, concept.initializer_token, concept.vectors)


def pieces(tokenizer: Any, text: str) -> list[tuple[str, int]]:
    """What the tokenizer makes of a text: its tokens, as a reader would write them, with their ids."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids  # a long text is no mistake here
    tokens = tokenizer.convert_ids_to_tokens(ids)
    shown = [tokenizer.convert_tokens_to_string([token]).replace(_WORD_END, "").strip() for token in tokens]
    return list(zip(shown, ids, strict=True))


def show_tokens(tokenizer: Any, words: Sequence[str]) -> HTML:
    """A table of words, each with its tokens as coloured pieces over their ids."""
    rows = (
        f"<tr><td>{html.escape(word)}</td>"
        f"<td style='text-align:left'>{coloured_pieces(pieces(tokenizer, word))}</td></tr>"
        for word in words
    )
    return HTML(f"<table><tr><th>text</th><th>tokens and their ids</th></tr>{''.join(rows)}</table>")


def known_words(tokenizer: Any) -> dict[str, int]:
    """Words of three letters or more that end where their token ends, with their ids."""
    known = {
        token.removesuffix(_WORD_END): number
        for token, number in tokenizer.get_vocab().items()
        if token.endswith(_WORD_END)
    }
    return {word: number for word, number in known.items() if re.fullmatch("[a-z]{3,}", word)}


def coloured_pieces(parts: Sequence[tuple[str, int]]) -> str:
    """What `pieces` gave as HTML: each piece in a colour of its own, with its id."""
    return " ".join(
        f"<span style='background:{_COLOURS[index % len(_COLOURS)]};color:#222;padding:2px 5px'>"
        f"{html.escape(piece)} <small>{token_id}</small></span>"
        for index, (piece, token_id) in enumerate(parts)
    )


def _ids(tokenizer: Any, words: str) -> list[int]:
    return tokenizer(words, add_special_tokens=False).input_ids


def _would_do(tokenizer: Any, words: str) -> list[str]:
    """One-token words: those of the phrase, or else those of the vocabulary with a similar spelling."""
    own = [word for word in words.split() if len(_ids(tokenizer, word)) == 1]
    if own:
        return own
    known = known_words(tokenizer)
    near = [
        word for part in words.lower().split() for word in difflib.get_close_matches(part, known, cutoff=0.5)
    ]
    return list(dict.fromkeys([*near, "toy"]))


# Words beside the one that was typed: near ones that would do, and those that it collides with.
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
