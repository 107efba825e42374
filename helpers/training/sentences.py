"""The sentences of a run as token ids: those trained on, and those kept back to judge by."""

from collections.abc import Sequence
from typing import Any

import torch

from ..concept import Concept
from ..dataset import prompt_ids
from ..templates import templates_for
from ..tokens import expand_prompt

_KEPT_BACK = slice(4, None, 9)  # three of the 27 for an object, two of the 19 for a style


def held_out_templates(concept: Concept) -> tuple[str, ...]:
    """Sentences that training never shows; all of a person's own are trained on."""
    return templates_for(concept.what_to_teach)[_KEPT_BACK]


def training_templates(concept: Concept) -> tuple[str, ...]:
    kept_back = held_out_templates(concept)
    return tuple(sentence for sentence in concept.templates if sentence not in kept_back)


def with_word(concept: Concept, templates: Sequence[str]) -> list[str]:
    """Sentences with the concept's word in them, all of its tokens written out."""
    sentences = [template.replace("{}", concept.placeholder_token) for template in templates]
    return [expand_prompt(sentence, concept.placeholder_tokens) for sentence in sentences]


def token_ids(tokenizers: Sequence[Any], prompts: Sequence[str], device: Any = "cpu") -> list[torch.Tensor]:
    """For each tokenizer, int64 (sentences, length), on the device."""
    return [
        torch.stack([prompt_ids(tokenizer, prompt) for prompt in prompts]).to(device)
        for tokenizer in tokenizers
    ]
