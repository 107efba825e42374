"""The pictures and sentences that the network is shown. Each step is a function of its own."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageOps

from ..concept.concept import Concept, TrainingSettings
from ..concept.templates import templates_for
from ..model.base_model import load_resolution, load_tokenizers
from ..model.tokens import add_tokens, expand_prompt, pieces, prompt_ids
from ..model.vae import to_image, to_pixel_values
from .captions import captions_of, read_captions
from .images import image_paths, load_image, load_images

INTERPOLATIONS = {
    "linear": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SMALLEST_RANDOM_CROP = 0.8


class TextualInversionDataset(torch.utils.data.Dataset):
    """The pictures of a concept, each time with another sentence, or with one of its own captions.

    Its length is the number of pictures. The source tutorial's `repeats=100` only made an epoch
    longer, so that its loop seldom had to start one; our loop draws pictures without an end.

    Args:
        concept: its pictures, templates and training settings.
        tokenizers: one, for XL two, that know the concept's placeholder tokens.
        resolution: side of the pictures in pixels; the concept's own setting goes before it.
        draw: where sentence, flip and random crop are drawn from; seeded from the settings if None.

    Raises:
        UserError: the concept has no pictures, or a caption can't be used.
    """

    def __init__(
        self, concept: Concept, tokenizers: list[Any], resolution: int, draw: random.Random | None = None
    ):
        self.concept = concept
        self.tokenizers = tokenizers
        self.resolution = concept.training.resolution or resolution
        self.images = load_images(concept)
        own = captions_of(concept)
        self.captions = [own.get(path.name) for path in image_paths(concept)]
        self.draw = draw or random.Random(concept.training.seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example.

        Returns:
            `pixel_values`, float32 (3, side, side) in -1..1; `input_ids`, for each tokenizer int64
            (length,); `prompt`, the sentence, with all tokens of the word written out.
        """
        settings = self.concept.training
        flipped = self.draw.random() < settings.flip_probability
        prompt = draw_prompt(self.concept, self.draw, self.captions[index])
        return {
            "pixel_values": preprocess(self.images[index], settings, self.resolution, flipped, self.draw),
            "input_ids": [prompt_ids(tokenizer, prompt) for tokenizer in self.tokenizers],
            "prompt": prompt,
        }


def draw_prompt(concept: Concept, draw: random.Random, captions: Sequence[str] | None = None) -> str:
    """One of the concept's sentences, or of a picture's own `captions`, with the word in it (`fill`)."""
    return fill(concept, draw.choice(captions or concept.templates))


def fill(concept: Concept, template: str) -> str:
    """A sentence with the concept's word for `{}`, all tokens of the word written out."""
    sentence = template.replace("{}", concept.placeholder_token)
    return expand_prompt(sentence, concept.placeholder_tokens)


def preprocess(
    image: Image.Image,
    settings: TrainingSettings,
    resolution: int,
    flipped: bool = False,
    draw: random.Random | None = None,
) -> torch.Tensor:
    """All steps in order: crop, resize, flip, to numbers.

    Args:
        flipped: whether this picture is mirrored; the caller draws it, so that both can be cached.
        draw: needed only with `random_crop`.

    Returns:
        float32 (3, resolution, resolution) in -1..1.
    """
    image = resize(crop(image, settings, draw), resolution, settings.interpolation)
    return to_pixel_values(ImageOps.mirror(image) if flipped else image)


def crop(image: Image.Image, settings: TrainingSettings, draw: random.Random | None = None) -> Image.Image:
    """The square of the picture that is used.

    `random_crop`: a square of 80 to 100% of the shorter side, anywhere. `center_crop`: the largest
    square in the middle. Neither: the whole picture, which `resize` then squeezes into a square.
    """
    if settings.random_crop:
        return _random_square(image, draw or random.Random(settings.seed))
    return _square(image, min(image.size), 0.5, 0.5) if settings.center_crop else image


def resize(image: Image.Image, resolution: int, interpolation: str) -> Image.Image:
    """To a square of `resolution` pixels a side, with Pillow's filter of that name (`linear` is bilinear)."""
    return image.resize((resolution, resolution), INTERPOLATIONS[interpolation])


def _random_square(image: Image.Image, draw: random.Random) -> Image.Image:
    side = round(min(image.size) * draw.uniform(SMALLEST_RANDOM_CROP, 1))
    return _square(image, side, draw.random(), draw.random())


def _square(image: Image.Image, side: int, from_left: float, from_top: float) -> Image.Image:
    """A square; `from_left` and `from_top` say where in the free space, 0 to 1."""
    left, top = round((image.width - side) * from_left), round((image.height - side) * from_top)
    return image.crop((left, top, left + side, top + side))


# The sentences of a run as token ids: those trained on, and those kept back to judge by.
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


# What the network will see of a concept, one example after the other, without chance.


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
    add_tokens(tokenizer, concept.placeholder_tokens)
    return tokenizer
