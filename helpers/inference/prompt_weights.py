"""Weights in prompts, written as in AUTOMATIC1111 and applied by compel.

`(word:1.3)` counts 1.3 times as much, `(word)` 1.1 times, `[word]` 1 / 1.1 times. Inside one another
weights multiply. A bracket or a backslash with a backslash before it is text. A bracket that is not closed
reaches to the end. This is the grammar of `parse_prompt_attention` in AUTOMATIC1111's
`modules/prompt_parser.py` (without its `BREAK`).
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..common.errors import UserError, valid_unicode
from ..model.machine import diffusers
from ..model.tokens import encoders

MOST = 2.0
_BRACKET = 1.1
_TOKENS = re.compile(r"\\[()\[\]\\]?|[()\[\]]|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
_COMMA = re.compile(r"\([^()]*:\s*\d+,\d+\s*\)")
_UNCLOSED = re.compile(r"[^()]*?:\s*\d")
Part = tuple[str, float]


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt: its texts with their weights; neighbours of the same weight are joined."""

    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The words alone, as the tokenizer gets them."""
        return _text(self.parts)

    @property
    def is_weighted(self) -> bool:
        """Whether any part has a weight other than 1."""
        return any(weight != 1 for _, weight in self.parts)


@lru_cache(maxsize=1024)
def parse_prompt(prompt: str, words: tuple[str, ...] = ()) -> Prompt:
    """Read the weights in a prompt.

    Args:
        words: learned words, whose own brackets are never a weight's.

    Raises:
        UserError: a weight is no number from 0 to 2, has no words, or its bracket is not closed; or the
            prompt holds half a character.
    """
    parts: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # the place in `parts` of each open bracket

    def close(bracket: str, weight: float) -> None:
        for part in parts[opened[bracket].pop() :]:
            part[1] *= weight

    if _COMMA.search(prompt):
        raise UserError(f"A weight in “{prompt}” has a comma: use a decimal point, as in (toy:1.3).")
    for token in _TOKENS.finditer(_with_words_as_text(valid_unicode(prompt), words)):
        text, number = token.group(), token["weight"]
        if text in opened:
            opened[text].append(len(parts))
        elif number is not None and opened["("]:
            close("(", _weight(_text(parts[opened["("][-1] :]), number))
        elif text == ")" and opened["("]:
            close("(", _BRACKET)
        elif text == "]" and opened["["]:
            close("[", 1 / _BRACKET)
        else:
            parts.append([text.removeprefix("\\"), 1.0])
    for start in opened["("]:
        _check_closed(_text(parts[start:]))
    for bracket, weight in (("(", _BRACKET), ("[", 1 / _BRACKET)):
        while opened[bracket]:
            close(bracket, weight)
    groups = itertools.groupby(filter(lambda part: part[0], parts), lambda part: part[1])
    return Prompt(tuple((_text(group), weight) for weight, group in groups))


def _with_words_as_text(prompt: str, words: Sequence[str]) -> str:
    """A backslash before each bracket of a learned word such as `[V]`."""
    for word in sorted(words, key=len, reverse=True):
        prompt = re.sub(re.escape(word), _escaped, prompt, flags=re.IGNORECASE)
    return prompt


def _escaped(word: re.Match) -> str:
    return re.sub(r"([\\()\[\]])", r"\\\1", word[0])


def weighted(words: str, weight: float) -> str:
    """Words with a weight, to be put into a prompt; with weight 1 the words alone."""
    return words if weight == 1 else f"({words}:{weight:g})"


@torch.no_grad()
def weighted_embeddings(pipeline: Any, prompts: Sequence[Prompt], negative_prompt: Prompt) -> dict[str, Any]:
    """The embeddings that a pipeline takes instead of prompts, weighted by compel.

    A weight above 1 moves a word's vectors away from those of an empty prompt, one below 1 towards those
    of the prompt without the word.

    Returns:
        `prompt_embeds` and `negative_prompt_embeds` of shape (prompts, tokens, width). For XL also the
        pooled ones, of shape (prompts, width): they stand for the whole sentence, and have no weights.
    """
    provider, count = _provider(pipeline), len(prompts)
    given = {
        "prompt_embeds": torch.cat([_encode(pipeline, provider, prompt) for prompt in prompts]),
        "negative_prompt_embeds": _encode(pipeline, provider, negative_prompt).repeat(count, 1, 1),
    }
    if len(encoders(pipeline)) > 1:
        texts, negatives = [prompt.text for prompt in prompts], [negative_prompt.text] * count
        _, _, *pooled = pipeline.encode_prompt(texts, negative_prompt=negatives)
        given |= zip(("pooled_prompt_embeds", "negative_pooled_prompt_embeds"), pooled, strict=True)
    return given


def _provider(pipeline: Any) -> Any:
    """compel's `EmbeddingsProvider` over all text encoders, set to the layer that the pipeline takes."""
    diffusers()  # first, without bitsandbytes: compel imports it, too
    from compel.embeddings_provider import EmbeddingsProviderMulti, ReturnedEmbeddingsType

    tokenizers, text_encoders = zip(*encoders(pipeline), strict=True)
    layer = (
        ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        if len(text_encoders) > 1
        else ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    )
    return EmbeddingsProviderMulti(tokenizers, text_encoders, returned_embeddings_type=layer)


def _encode(pipeline: Any, provider: Any, prompt: Prompt) -> torch.Tensor:
    """Shape (1, tokens, width). A word of several vectors becomes its tokens, as in diffusers."""
    parts = [(text, weight) for text, weight in prompt.parts if text.strip()] or [("", 1.0)]
    texts = [pipeline.maybe_convert_prompt(text, pipeline.tokenizer) for text, _ in parts]
    weights = [weight for _, weight in parts]
    return provider.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=pipeline.device)


def _weight(words: str, number: str) -> float:
    written = f"({words}:{number})"
    if not words.strip():
        raise UserError(f"“{written}” has no words: put them before the colon, as in (toy:1.3).")
    weight = float(number) if number.count(".") < 2 and number != "." else -1
    if not 0 <= weight <= MOST:
        raise UserError(
            f"The weight in “{written}” can't be used: give a number from 0 to {MOST:g}; where no weight is "
            "meant, write \\( and \\)."
        )
    return weight


def _check_closed(rest: str) -> None:
    if _UNCLOSED.match(rest):
        raise UserError(f"The bracket before “{rest[:40].strip()}” is not closed: write it as in (toy:1.3).")


def _text(parts) -> str:
    return "".join(text for text, _ in parts)
