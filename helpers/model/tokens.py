"""A new word: its tokens in the tokenizer and its rows in the text encoder; nothing else changes."""

import difflib
import html
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from IPython.display import HTML
from torch import nn
from transformers import AddedToken

from ..common.errors import UserError, valid_unicode
from ..common.sheets import html_table
from ..concept.concept import Concept, composed, normalized, row_names, saved_concepts

CAPTION_WORDS = "words_of_captions"  # a key of the miniature's tokenizer settings: its words but names
_WORD_END = "</w>"
_KNOWN = re.compile(f"([a-z]{{3,}}){_WORD_END}")
_PUNCTUATION = ".,;:!?…'’\"“”-"  # beside a word in any text
_COLOURS = ("#cfe8ff", "#ffe2c6", "#d5f2d0", "#f6d3ea", "#fff3b0")


class LearnedRows(nn.Module):
    """A text encoder's token embedding with a few trainable rows of its own.

    It wraps the token embedding (`nn.Embedding`, or another `LearnedRows`), which it asks for every token
    but the new ones. Only `rows` is trained: textual inversion's own formulation (Gal et al. 2022,
    arXiv 2208.01618, section 4.1), without the whole table in the optimizer.

    Attributes:
        rows: float32 parameter (vectors, width); the encoder's `.to(dtype)` would convert it, too.
        ids: the token ids of the rows, consecutive.
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
        """Set each row to the table's row of the given token."""
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
    """Add a word's tokens to a tokenizer (`add_tokens`), and a trainable row for each to its text encoder.

    Each row starts from that of its token in `initializer_ids`. It can be called again for another word.

    Returns:
        The encoder's new token embedding; only its `rows` have a gradient.
    """
    ids = add_tokens(tokenizer, tokens)
    learned = LearnedRows(text_encoder.get_input_embeddings(), ids, initializer_ids)
    text_encoder.set_input_embeddings(learned)
    return learned


def set_rows(text_encoder: nn.Module, ids: Sequence[int], rows: torch.Tensor) -> None:
    """Write rows, (vectors, width), into the text encoder's table."""
    table = text_encoder.get_input_embeddings().weight.data
    table[list(ids)] = rows.to(table)


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Add the tokens of a word to a tokenizer and return their ids.

    They are found in a text before it is lowercased, so that `<Grooty>` stays one token.

    Raises:
        UserError: the tokenizer has one of the tokens already; then nothing has changed.
    """
    _check_new(tokenizer, tokens)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer.convert_tokens_to_ids(list(tokens))


def learned_tokens(tokenizer: Any) -> list[str]:
    """The tokens that `add_tokens` added."""
    added = tokenizer.added_tokens_decoder.values()
    return [token.content for token in added if not token.special]


def expand_prompt(prompt: str, tokens: Sequence[str]) -> str:
    """Write out each word of several vectors: `<g>` becomes `<g> <g>_1 <g>_2`.

    Of words that begin alike the longest is taken, and case is ignored. A word that is written out already
    stays as it is.

    Args:
        tokens: all tokens of all words, as `Concept.placeholder_tokens` or `learned_tokens` give them.
    """
    if not tokens:
        return prompt
    pattern, replacements = _expansions(tuple(tokens))
    return pattern.sub(lambda found: replacements[found.lastindex - 1], composed(prompt))


@lru_cache
def _expansions(tokens: tuple[str, ...]) -> tuple[re.Pattern, list[str]]:
    """A pattern with a group for each way to write a word, and the replacement of each group."""
    texts = {}
    for token in tokens:
        rows = [name for name in row_names(token, len(tokens)) if name in tokens]
        texts[" ".join(rows)] = texts[token] = " ".join(rows)
    longest_first = sorted(texts, key=len, reverse=True)
    groups = (f"({re.escape(composed(text))})" for text in longest_first)
    return re.compile("|".join(groups), re.IGNORECASE), [texts[text] for text in longest_first]


def prompt_ids(tokenizer: Any, prompt: str) -> torch.Tensor:
    """Token ids of a sentence, int64 (length,), for training and drawing: expanded, padded or truncated."""
    text = expand_prompt(prompt, learned_tokens(tokenizer))
    return tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]


def encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """A pipeline's pairs of tokenizer and text encoder: one, for XL two."""
    suffixes = ("", "_2") if hasattr(pipeline, "text_encoder_2") else ("",)
    return [
        (getattr(pipeline, f"tokenizer{suffix}"), getattr(pipeline, f"text_encoder{suffix}"))
        for suffix in suffixes
    ]


@torch.no_grad()
def put_word(pipeline: Any, word: str, rows: Sequence[torch.Tensor]) -> None:
    """Add a learned word to a pipeline, which then reads prompts as training does.

    Like diffusers' `load_textual_inversion`, except for how the tokens are added (`add_tokens`).

    Args:
        rows: for each text encoder a tensor of shape (vectors, width).
    """
    for (tokenizer, text_encoder), own in zip(encoders(pipeline), rows, strict=True):
        ids = add_tokens(tokenizer, row_names(word, len(own)))
        entries = max(ids[-1] + 1, len(text_encoder.get_input_embeddings().weight))
        text_encoder.resize_token_embeddings(entries, mean_resizing=False)
        set_rows(text_encoder, ids, own)
    # diffusers' own method also replaces `<g>` inside of `<g>_s`.
    pipeline.maybe_convert_prompt = _convert_prompt


def _convert_prompt(prompt: str | list[str], tokenizer: Any) -> str | list[str]:
    if isinstance(prompt, str):
        return expand_prompt(prompt, learned_tokens(tokenizer))
    return [_convert_prompt(one, tokenizer) for one in prompt]


def most_tokens(tokenizer: Any) -> int:
    """How many tokens of a text the model reads."""
    return tokenizer.model_max_length - 2  # the beginning and the end are tokens, too


def unread(tokenizer: Any, prompt: str) -> str:
    """The end of a prompt that is beyond the tokenizer's limit, its words written out; mostly empty."""
    text = expand_prompt(prompt, learned_tokens(tokenizer))
    places = _tokenized(tokenizer, text, return_offsets_mapping=True).offset_mapping
    beyond = places[most_tokens(tokenizer) :]
    return text[beyond[0][0] :] if beyond else ""


def check_length(tokenizer: Any, prompt: str) -> None:
    """Raise a UserError if a learned word, or one of its vectors, is beyond the tokenizer's limit."""
    learned, limit = learned_tokens(tokenizer), most_tokens(tokenizer)
    ids = _ids(tokenizer, expand_prompt(prompt, learned))
    read, beyond = (set(tokenizer.convert_ids_to_tokens(part)) for part in (ids[:limit], ids[limit:]))
    if lost := [token for token in learned if token in beyond - read]:
        raise UserError(
            f"The prompt has {len(ids)} tokens and the model reads {limit}, so {lost[0]} would be cut off: "
            "shorten it, or put the word nearer to its beginning."
        )


def check_placeholder(tokenizer: Any, *tokens: str) -> None:
    """Raise a UserError if a word can't be seen, is known already, or occurs in usual sentences.

    The names of its other rows must be new, too.
    """
    word = tokens[0]
    if not word.isprintable():
        raise UserError(f"{word!a} has a sign in it that nobody sees: write the word without it.")
    _check_new(tokenizer, tokens)
    bare = word.strip(_PUNCTUATION)
    if bare != word and (not bare or bare.lower() + _WORD_END in tokenizer.get_vocab()):
        raise UserError(f"“{word}” also comes in usual sentences: write it in brackets, as in <{word}>.")
    inside = sorted(known for known in known_words(tokenizer) if word.lower() in known)
    if inside:
        raise UserError(
            f"“{word}” is a part of words such as {', '.join(inside[:3])}, which would be cut there: "
            f"write it in brackets, for example <{word}>."
        )


def _check_new(tokenizer: Any, tokens: Sequence[str]) -> None:
    vocabulary = tokenizer.get_vocab()
    added = {normalized(token) for token in learned_tokens(tokenizer)}
    for token in tokens:
        word = normalized(token)
        if word in added or not {token, word, word + _WORD_END}.isdisjoint(vocabulary):
            raise UserError(
                f"The base model knows “{token}” already: choose another placeholder token, "
                f"for example <my-{token.strip('<>')}>."
            )


def initializer_ids(tokenizer: Any, words: str, vectors: int) -> list[int]:
    """The token that each vector starts from.

    A phrase of k tokens is spread in order over the vectors: vector i starts from token
    floor(i * k / vectors), so that with 4 vectors `red toy` gives red, red, toy, toy.

    Raises:
        UserError: `words` has no token, or more than there are vectors; the sentence proposes words.
    """
    ids = _ids(tokenizer, words)
    if not ids:
        raise UserError(
            "Which word should yours start from? Set INITIALIZER_TOKEN in notebook 2 (in a command, "
            "INITIALIZER) to the kind of thing that you teach: cat for a cat, painting for a style."
        )
    if len(ids) > vectors:
        parts = ", ".join(piece for piece, _ in pieces(tokenizer, words))
        one_token = [word for word in words.split() if len(_ids(tokenizer, word)) == 1]
        would_do = one_token or dict.fromkeys([*nearest_words(tokenizer, words), "toy"])
        raise UserError(
            f"“{words}” is {len(ids)} tokens ({parts}): set vectors to {len(ids)}, or start from one of "
            f"these: {', '.join(would_do)}."
        )
    return [ids[index * len(ids) // vectors] for index in range(vectors)]


def check_words(concept: Concept, tokenizers: Sequence[Any]) -> None:
    """`check_placeholder` and `initializer_ids` of a concept's words, for each of a model's tokenizers."""
    for tokenizer in tokenizers:
        check_placeholder(tokenizer, *concept.placeholder_tokens)
        initializer_ids(tokenizer, concept.initializer_token, concept.vectors)


def pieces(tokenizer: Any, text: str) -> list[tuple[str, int]]:
    """A text's tokens, as a reader would write them, with their ids."""
    learned = learned_tokens(tokenizer)
    ids = _ids(tokenizer, expand_prompt(text, learned))

    def shown(token: str) -> str:
        if token in learned:  # an accent in it is no byte, as it is in other tokens
            return token
        return tokenizer.convert_tokens_to_string([token]).replace(_WORD_END, "").strip()

    return list(zip(map(shown, tokenizer.convert_ids_to_tokens(ids)), ids, strict=True))


def show_tokens(tokenizer: Any, words: Sequence[str]) -> HTML:
    """A table of words, each with its tokens as coloured pieces with their ids."""
    rows = [(word, HTML(coloured_pieces(pieces(tokenizer, word)))) for word in words]
    return HTML(html_table(rows, head=("text", "tokens and their ids")))


def known_words(tokenizer: Any) -> dict[str, int]:
    """Words of three letters or more that are one token, with their ids."""
    found = ((_KNOWN.fullmatch(token), number) for token, number in tokenizer.get_vocab().items())
    return {match[1]: number for match, number in found if match}


def coloured_pieces(parts: Sequence[tuple[str, int]]) -> str:
    """The result of `pieces` as HTML: each piece in its own colour, with its id."""
    return " ".join(
        f"<span style='background:{_COLOURS[index % len(_COLOURS)]};color:#222;padding:2px 5px'>"
        f"{html.escape(piece)} <small>{token_id}</small></span>"
        for index, (piece, token_id) in enumerate(parts)
    )


def _ids(tokenizer: Any, words: str) -> list[int]:
    return _tokenized(tokenizer, words).input_ids


def _tokenized(tokenizer: Any, words: str, **how: bool) -> Any:
    # Not verbose: `check_length` and `unread` report a text that is too long.
    return tokenizer(valid_unicode(words), add_special_tokens=False, verbose=False, **how)


# Near to every other word, and useless as an initializer.
_FUNCTION_WORDS = {*"and are for from her his its not one that the their this two under with your".split()}


def nearest_words(tokenizer: Any, words: str, table: torch.Tensor | None = None) -> list[str]:
    """At most six words of one token each that are near to what was typed, as initializers in its place.

    A word of one token is looked up by meaning: by the cosine between its row in `table` (`load_word_table`)
    and the others. A word of several tokens has no row: it is looked up by spelling, as are all words without
    a table. Words of one token in a phrase come first.
    """
    typed = words.lower().split()
    known, meant = known_words(tokenizer), tokenizer.init_kwargs.get(CAPTION_WORDS)
    if meant:  # the miniature lists them: its other tokens are names of toys and pieces of words
        known = {word: number for word, number in known.items() if word in meant}
    one_token = [word for word in typed if word in known]
    first = one_token if len(typed) > 1 else []
    by_meaning = _near_rows(table, [known[word] for word in one_token], known) if table is not None else []
    by_spelling = [
        near
        for word in typed
        if not by_meaning or word not in known
        for near in difflib.get_close_matches(word, known, cutoff=0.5)
    ]
    found = dict.fromkeys([*first, *by_spelling, *by_meaning])
    return [word for word in found if [word] != typed][:6]


def _near_rows(table: torch.Tensor, ids: Sequence[int], known: dict[str, int]) -> list[str]:
    if not ids:
        return []
    unit = nn.functional.normalize(table, dim=1)
    others = [word for word, number in known.items() if number not in ids and word not in _FUNCTION_WORDS]
    cosines = unit[[known[word] for word in others]] @ unit[list(ids)].sum(dim=0)
    return [others[place] for place in cosines.topk(min(len(others), 16)).indices.tolist()]


def collisions(concept: Concept, tokenizer: Any) -> list[str]:
    """Sentences about collisions of the placeholder with words of the model and of other concepts."""
    found, own = [], {*concept.placeholder_tokens}
    try:
        check_placeholder(tokenizer, *concept.placeholder_tokens)
    except UserError as error:
        found.append(str(error))
    for name in saved_concepts():
        with suppress(UserError):  # a damaged one has no word
            other = Concept.load(name)
            if name != concept.name and not own.isdisjoint(other.placeholder_tokens):
                found.append(
                    f"The concept “{name}” has the word {other.placeholder_token} as well, and no prompt can "
                    "hold both: that is right for a second try of the same thing; else choose another, for "
                    f"example <{concept.name}-2>."
                )
    return found
