"""The sentences of a run as token ids: those trained on, and those kept back to judge by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..captions import captions_of
from ..concept import Concept
from ..dataset import fill, prompt_ids
from ..images import image_paths
from ..templates import templates_for

_KEPT_BACK = slice(4, None, 9)  # three of the 27 for an object, two of the 19 for a style


def held_out_templates(concept: Concept) -> tuple[str, ...]:
    """Sentences that training never shows; all of a person's own are trained on."""
    return templates_for(concept.what_to_teach)[_KEPT_BACK]


def training_templates(concept: Concept) -> tuple[str, ...]:
    kept_back = held_out_templates(concept)
    return tuple(sentence for sentence in concept.templates if sentence not in kept_back)


@dataclass(frozen=True)
class Sentences:
    """All sentences of a run: first those for any picture, then the captions.

    Attributes:
        templates: with `{}` for the word.
        captions: for a picture that has its own, by its place among the pictures: which of `templates`.
    """

    templates: tuple[str, ...]
    captions: dict[int, range]


def training_sentences(concept: Concept) -> Sentences:
    """What a run is shown: a picture with captions of its own gets those, any other one the templates.

    Raises:
        UserError: the concept has no pictures, or a caption can't be used.
    """
    templates, own, captions = [*training_templates(concept)], captions_of(concept), {}
    for place, path in enumerate(image_paths(concept)):
        if path.name in own:
            captions[place] = range(len(templates), len(templates) + len(own[path.name]))
            templates += own[path.name]
    return Sentences(tuple(templates), captions)


def sentence_of(picture: int, card: int, captions: Mapping[int, range]) -> int:
    """Which sentence goes with a picture: the one that was dealt, or in its place one of its captions."""
    own = captions.get(picture)
    return own[card % len(own)] if own else card


def with_word(concept: Concept, templates: Sequence[str]) -> list[str]:
    """Sentences with the concept's word in them, all of its tokens written out."""
    return [fill(concept, template) for template in templates]


def token_ids(tokenizers: Sequence[Any], prompts: Sequence[str], device: Any = "cpu") -> list[torch.Tensor]:
    """For each tokenizer, int64 (sentences, length), on the device."""
    return [
        torch.stack([prompt_ids(tokenizer, prompt) for prompt in prompts]).to(device)
        for tokenizer in tokenizers
    ]
