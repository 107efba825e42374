"""What the network will see of a concept, one example after the other, without chance."""

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .base_model import load_resolution, load_tokenizers
from .captions import read_captions
from .concept import Concept
from .dataset import fill, preprocess, to_image
from .images import image_paths, load_image
from .tokens import pieces
from .training.sentences import training_templates


@dataclass(frozen=True)
class Example:
    """A picture with a sentence, as training takes them.

    Attributes:
        picture: the name of its file.
        original: the picture as it is kept.
        image: the square that the network gets, in the model's size.
        sentence: with the word in it, written as in a prompt.
        tokens: what the (first) tokenizer makes of it, as far as the model reads: pieces and their ids.
        cut_off: the end of the sentence that the model never reads; mostly empty.
    """

    picture: str
    original: Image.Image
    image: Image.Image
    sentence: str
    tokens: list[tuple[str, int]]
    cut_off: str


class Preview:
    """Shows the examples of a concept; captions are read anew each time, so that they may change.

    Attributes:
        names: the files of the pictures, in order.

    Raises:
        UserError: the concept has no pictures, or its base model can't be read.
    """

    def __init__(self, concept: Concept):
        self.concept = concept
        self.names = [path.name for path in image_paths(concept)]
        self.resolution = concept.training.resolution or load_resolution(concept.base_model)
        self._tokenizer = _with_word(load_tokenizers(concept.base_model)[0], concept)

    def sentences(self, name: str) -> tuple[str, ...]:
        """All that training may say of the picture: its own captions, or else the templates.

        Raises:
            UserError: there is no such picture, or its captions can't be used.
        """
        return tuple(read_captions(self.concept, name)) or training_templates(self.concept)

    def flips(self) -> tuple[bool, ...]:
        """Whether a picture may come as it is (False) and mirrored (True)."""
        share = self.concept.training.flip_probability
        return (False,) * (share < 1) + (True,) * (share > 0)

    def example(self, name: str, template: str, flipped: bool = False, crop: int = 0) -> Example:
        """One example.

        Args:
            name: of the picture.
            template: a sentence with `{}` for the word.
            flipped: whether the picture is mirrored.
            crop: with `random_crop` a number for each crop; it changes nothing without.

        Raises:
            UserError: there is no such picture, or it is damaged.
        """
        original, settings = load_image(self.concept, name), self.concept.training
        pixels = preprocess(original, settings, self.resolution, flipped, random.Random(crop))
        tokens = pieces(self._tokenizer, fill(self.concept, template))
        read = self._tokenizer.model_max_length - 2  # the beginning and the end are tokens, too
        return Example(
            picture=name,
            original=original,
            image=to_image(pixels),
            sentence=template.replace("{}", self.concept.placeholder_token),
            tokens=tokens[:read],
            cut_off=self._tokenizer.decode([number for _, number in tokens[read:]]),
        )


def _with_word(tokenizer: Any, concept: Concept) -> Any:
    tokenizer.add_tokens(concept.placeholder_tokens)
    return tokenizer
