"""Weights in prompts: `(word:1.3)`, written as in AUTOMATIC1111, carried out by compel.

compel's own notation is `(word)1.3`; in it dots, quotes, + and - mean something as well. So a prompt is
taken apart here, and compel gets the parts: every other sign of a prompt stays what it is.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch

from ..common.errors import UserError
from ..model.libraries import diffusers

MOST = 2.0
_PIECES = re.compile(r"\(|:[^():]*\)|\)|[^():]+|:")
_UNCLOSED = re.compile(r"[^()]*?:\s*\d")
Part = tuple[str, float]


def split_weights(prompt: str) -> list[Part]:
    """The parts of a prompt with the weight of each; 1 where none is written.

    `(a red toy:1.2)` gives three words a weight; inside one another, weights multiply. Brackets without
    a colon are left in the text as they are.

    Raises:
        UserError: a weight is no number from 0 to 2, has no words, or its bracket is not closed.
    """
    parts: list[Part] = []
    opened: list[int] = []
    for piece in _PIECES.findall(prompt):
        start = opened.pop() if opened and piece.endswith(")") else None
        if piece == "(":
            opened.append(len(parts))
        if start is None or piece == ")":
            parts.append((piece, 1.0))
        else:
            weight = _weight(_text(parts[start + 1 :]), piece[1:-1])
            parts[start:] = [(text, own * weight) for text, own in parts[start + 1 :]]
    for start in opened:
        _check_closed(_text(parts[start + 1 :]))
    return [(_text(group), weight) for weight, group in itertools.groupby(parts, lambda part: part[1])]


def without_weights(prompt: str) -> str:
    """The words alone, as a tokenizer is to see them."""
    return _text(split_weights(prompt))


def is_weighted(prompt: str) -> bool:
    """Whether a part of it counts for more or less than the rest."""
    return any(weight != 1 for _, weight in split_weights(prompt))


def weighted(words: str, weight: float) -> str:
    """Words with a weight on them, to be put into a prompt; with 1 the words alone."""
    return words if weight == 1 else f"({words}:{weight:g})"


@torch.no_grad()
def weighted_embeddings(pipeline: Any, prompts: Sequence[str], negative_prompt: str) -> dict[str, Any]:
    """What a pipeline takes in place of prompts: its text encoders' output, weighted by compel.

    A weight above 1 moves a word's vectors away from those of an empty prompt, one below 1 towards those
    of the prompt without the word.

    Returns:
        `prompt_embeds` and `negative_prompt_embeds` of shape (prompts, tokens, width). For XL also the
        pooled ones, of shape (prompts, width): they stand for the whole sentence, and have no weights.
    """
    providers = _providers(pipeline)
    negative = _encode(pipeline, providers, negative_prompt)
    given = {
        "prompt_embeds": torch.cat([_encode(pipeline, providers, prompt) for prompt in prompts]),
        "negative_prompt_embeds": negative.repeat(len(prompts), 1, 1),
    }
    return given | (_pooled(pipeline, prompts, negative_prompt) if len(providers) > 1 else {})


def _encode(pipeline: Any, providers: list[Any], prompt: str) -> torch.Tensor:
    """Shape (1, tokens, width). Each word of several vectors becomes its tokens, as diffusers does it."""
    parts = [(text, weight) for text, weight in split_weights(prompt) if text.strip()] or [("", 1.0)]
    weights = [weight for _, weight in parts]
    encoded = []
    for provider in providers:
        texts = [pipeline.maybe_convert_prompt(text, provider.tokenizer) for text, _ in parts]
        encoded.append(
            provider.get_embeddings_for_weighted_prompt_fragments([texts], [weights], device=pipeline.device)
        )
    return torch.cat(encoded, dim=-1)


def _providers(pipeline: Any) -> list[Any]:
    """compel's readers, one for each text encoder, set to the layer that its pipeline takes."""
    diffusers()  # compel imports it, too: without bitsandbytes, please
    from compel import EmbeddingsProvider, ReturnedEmbeddingsType

    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    layer = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        layer = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
    settings = {"returned_embeddings_type": layer, "device": pipeline.device}
    return [EmbeddingsProvider(*pair, **settings) for pair in pairs]


def _pooled(pipeline: Any, prompts: Sequence[str], negative_prompt: str) -> dict[str, torch.Tensor]:
    words = [without_weights(prompt) for prompt in prompts]
    negatives = [without_weights(negative_prompt)] * len(prompts)
    _, _, pooled, negative_pooled = pipeline.encode_prompt(words, negative_prompt=negatives)
    return {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": negative_pooled}


def _weight(words: str, number: str) -> float:
    written = f"({words}:{number})"
    if not words.strip():
        raise UserError(f"“{written}” has no words: put them before the colon, as in (toy:1.3).")
    try:
        weight = float(number)
    except ValueError:
        raise UserError(
            f"“{written}” has no weight: after the colon comes a number from 0 to {MOST:g} with a point, as "
            "in (toy:1.3). Where no weight is meant, leave out the colon or the brackets."
        ) from None
    if not 0 <= weight <= MOST:
        raise UserError(f"The weight in “{written}” can't be used: give a number from 0 to {MOST:g}.")
    return weight


def _check_closed(rest: str) -> None:
    if _UNCLOSED.match(rest):
        raise UserError(f"The bracket before “{rest[:40].strip()}” is not closed: write it as in (toy:1.3).")


def _text(parts) -> str:
    return "".join(text for text, _ in parts)
