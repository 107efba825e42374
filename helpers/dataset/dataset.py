"""The data set that training draws from and notebook 3 shows. Each step is a function of its own.

Pictures or captions that are missing or can't be used raise a `UserError`.
"""

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageOps

from ..common.errors import UserError
from ..concept.concept import Concept, TrainingSettings
from ..concept.templates import SHIPPED_TEMPLATES
from ..model.base_model import load_resolution, load_tokenizers
from ..model.tokens import add_tokens, expand_prompt, most_tokens, pieces, prompt_ids, unread
from ..model.vae import to_image, to_pixel_values
from .images import captions_of, image_paths, load_image, load_images, read_captions, square_box

SMALLEST_RANDOM_CROP = 0.8
_HELD_OUT = slice(4, None, 9)  # three of the 27 sentences for an object, two of the 19 for a style


class View(NamedTuple):
    """One way to show a picture."""

    picture: int  # its index among the concept's
    flipped: bool = False
    crop: int | None = None  # the number of a random crop; None: as `center_crop` says


class TextualInversionDataset(torch.utils.data.Dataset):
    """The samples of a run, by number: a picture of the concept and a sentence with the word in it.

    A number always gives the same sample: all random choices depend on the seed in the settings and on the
    number only. So the samples of a run can be shown before it, and a run can go on from any number.

    There is a sample for every number. The length is that of one pass, in which each picture comes once; the
    next pass has another order. (The source tutorial's `repeats=100` only made a pass longer.)

    Args:
        tokenizers: one, for XL two, that have the concept's placeholder tokens.
        resolution: side of the pictures in pixels, unless the concept's settings have one.
    """

    def __init__(self, concept: Concept, tokenizers: Sequence[Any], resolution: int):
        self.settings, self.resolution = concept.training, concept.training.resolution or resolution
        self.pictures = load_images(concept)
        if not self.settings.random_crop:  # else they are needed in full; photos are large
            self.pictures = [
                resize(crop(image, self.settings), self.resolution, self.settings.interpolation)
                for image in self.pictures
            ]
        # Sentences with `{}` for the word: first those for any picture, then captions; and for each picture
        # with captions, by its index, which of the sentences these are.
        self.templates, self.captions = with_captions(concept, training_templates(concept))
        self.for_any_picture = len(self.templates) - sum(map(len, self.captions.values()))
        self.prompts = with_word(concept, self.templates)
        self.input_ids = checked_ids(concept, tokenizers, self.templates)  # int64 (sentences, length) each
        # Turns a view into entries of a sample; a run replaces it with one that gives latents.
        self.transform = lambda view: {"pixel_values": self.pixel_values(view)}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """The sample of that number.

        Returns:
            `pixel_values`, float32 (3, side, side) in -1..1, or what `transform` gives instead;
            `input_ids`, for each tokenizer int64 (length,); `prompt`, the sentence of these ids.
        """
        view, sentence = self.draw(number)
        ids = [of_one[sentence] for of_one in self.input_ids]
        return {**self.transform(view), "input_ids": ids, "prompt": self.prompts[sentence]}

    def draw(self, number: int) -> tuple[View, int]:
        """The random choices of a sample: the view of a picture, and the index of a sentence."""
        settings, seed = self.settings, self.settings.seed
        picture = _shuffled_index(number, len(self), f"{seed} pictures")
        sentence = _shuffled_index(number, self.for_any_picture, f"{seed} sentences")
        flipped = random.Random(f"{seed} flip {number}").random() < settings.flip_probability
        view = View(picture, flipped, number // len(self) if settings.random_crop else None)
        return view, sentence_of(picture, sentence, self.captions)

    def views(self) -> list[View]:
        """Every view that occurs without `random_crop`: the pictures as they are, then mirrored."""
        return [View(picture, flip) for flip in flips(self.settings) for picture in range(len(self))]

    def pixel_values(self, view: View) -> torch.Tensor:
        """A view as the VAE reads it: float32 (3, side, side) in -1..1."""
        draw = crop_draw(self.settings, view.picture, view.crop)
        return preprocess(self.pictures[view.picture], self.settings, self.resolution, view.flipped, draw)


def _shuffled_index(number: int, count: int, seed: str) -> int:
    """An index below `count`; each comes once in every pass of `count` numbers, in a new order."""
    turn, place = divmod(number, count)
    return _shuffled(count, f"{seed} {turn}")[place]


@lru_cache(maxsize=64)
def _shuffled(count: int, seed: str) -> tuple[int, ...]:
    return tuple(random.Random(seed).sample(range(count), count))


# From a picture to numbers.


def preprocess(
    image: Image.Image,
    settings: TrainingSettings,
    resolution: int,
    flipped: bool = False,
    draw: random.Random | None = None,
) -> torch.Tensor:
    """All steps in order: crop, resize, flip, to numbers; float32 (3, resolution, resolution) in -1..1."""
    image = resize(crop(image, settings, draw), resolution, settings.interpolation)
    return to_pixel_values(ImageOps.mirror(image) if flipped else image)


def crop(image: Image.Image, settings: TrainingSettings, draw: random.Random | None = None) -> Image.Image:
    """The part of the picture that is used.

    With `draw` a random crop: a square of 80 to 100% of the shorter side, anywhere. Otherwise, depending on
    `center_crop`, the largest square in the middle, or the full picture, which `resize` then squeezes.
    """
    if draw:
        side = round(min(image.size) * draw.uniform(SMALLEST_RANDOM_CROP, 1))
        left, top = (round((length - side) * draw.random()) for length in image.size)
        return image.crop((left, top, left + side, top + side))
    return image.crop(square_box(image.size, 0.5)) if settings.center_crop else image


def resize(image: Image.Image, resolution: int, interpolation: str) -> Image.Image:
    """Resize to a square of `resolution` pixels, with Pillow's filter of that name (`linear` is bilinear)."""
    name = "BILINEAR" if interpolation == "linear" else interpolation.upper()
    return image.resize((resolution, resolution), Image.Resampling[name])


def crop_draw(settings: TrainingSettings, picture: int, number: int | None) -> random.Random | None:
    """The random numbers for the crop `number` of a picture, for `crop`; None: no random crop."""
    return None if number is None else random.Random(f"{settings.seed} crop {picture} {number}")


def flips(settings: TrainingSettings) -> tuple[bool, ...]:
    """The ways in which a picture may come: as it is (False), mirrored (True)."""
    chance = settings.flip_probability
    return (False,) * (chance < 1) + (True,) * (chance > 0)


# From a sentence to numbers.


def held_out_templates(concept: Concept) -> tuple[str, ...]:
    """Shipped sentences that training never shows, for evaluation."""
    return SHIPPED_TEMPLATES[concept.what_to_teach][_HELD_OUT]


def training_templates(concept: Concept) -> tuple[str, ...]:
    """The sentences that training shows: the others, and a person's own."""
    held_out = held_out_templates(concept)
    return tuple(sentence for sentence in concept.templates if sentence not in held_out)


def with_captions(concept: Concept, templates: Sequence[str]) -> tuple[tuple[str, ...], dict[int, range]]:
    """Templates with the captions after them; and for each picture with captions, which ones these are."""
    templates, own, captions = [*templates], captions_of(concept), {}
    for place, path in enumerate(image_paths(concept)):
        if path.name in own:
            captions[place] = range(len(templates), len(templates) + len(own[path.name]))
            templates += own[path.name]
    return tuple(templates), captions


def sentence_of(picture: int, drawn: int, captions: Mapping[int, range]) -> int:
    """The index of a picture's sentence: the drawn one, or one of the picture's captions instead."""
    own = captions.get(picture)
    return own[drawn % len(own)] if own else drawn


def fill(concept: Concept, template: str) -> str:
    """A sentence with the concept's word for `{}`, with all tokens of the word."""
    sentence = template.replace("{}", concept.placeholder_token)
    return expand_prompt(sentence, concept.placeholder_tokens)


def with_word(concept: Concept, templates: Sequence[str]) -> list[str]:
    """Sentences with the word for `{}`, as `fill` writes it."""
    return [fill(concept, template) for template in templates]


def token_ids(tokenizers: Sequence[Any], prompts: Sequence[str], device: Any = "cpu") -> list[torch.Tensor]:
    """For each tokenizer, int64 (sentences, length), padded or truncated to its length."""
    return [
        torch.stack([prompt_ids(tokenizer, prompt) for prompt in prompts]).to(device)
        for tokenizer in tokenizers
    ]


def checked_ids(concept: Concept, tokenizers: Sequence[Any], templates: Sequence[str]) -> list[torch.Tensor]:
    """`token_ids` of sentences with the word; UserError if the model would not read all of the word."""
    all_ids = token_ids(tokenizers, with_word(concept, templates))
    for tokenizer, ids in zip(tokenizers, all_ids, strict=True):
        last = tokenizer.convert_tokens_to_ids(concept.placeholder_tokens[-1])
        for template, is_read in zip(templates, (ids == last).any(dim=1).tolist(), strict=True):
            if not is_read:
                raise UserError(_too_long(concept, tokenizer, template))
    return all_ids


def _too_long(concept: Concept, tokenizer: Any, template: str) -> str:
    count = len(pieces(tokenizer, fill(concept, template)))
    shown = template if len(template) <= 60 else f"{template[:30]}…{template[-28:]}"
    return (
        f"“{shown}” has {count} tokens, {concept.vectors} of them your word's, and the model reads only the "
        f"first {most_tokens(tokenizer)}, which end before your word does: shorten the sentence, or "
        "put {} nearer to its beginning."
    )


def tokenizers_with_word(concept: Concept) -> list[Any]:
    """The tokenizers of the concept's base model, one, for XL two, with the word's tokens added."""
    tokenizers = load_tokenizers(concept.base_model)
    for tokenizer in tokenizers:
        add_tokens(tokenizer, concept.placeholder_tokens)
    return tokenizers


# A sample that a person chooses.


class Example(NamedTuple):
    """A picture with a sentence, as training gets them."""

    picture: str  # the name of its file
    original: Image.Image  # as it is stored
    image: Image.Image  # the square that the network gets, in the model's resolution
    sentence: str  # with the word in it, written as in a prompt
    tokens: list[tuple[str, int]]  # pieces and ids of the (first) tokenizer, as far as the model reads
    cut_off: str  # the end of the sentence that the model does not read; usually empty


class Preview:
    """Makes examples of a concept; captions are read each time, so that they may change."""

    def __init__(self, concept: Concept):
        self.concept = concept
        self.names = [path.name for path in image_paths(concept)]
        self.resolution = concept.training.resolution or load_resolution(concept.base_model)
        self._tokenizers = tokenizers_with_word(concept)

    def sentences(self, name: str) -> tuple[str, ...]:
        """All sentences that training may take for a picture: its captions, or else the templates."""
        return tuple(read_captions(self.concept, name)) or training_templates(self.concept)

    def check(self, *templates: str) -> None:
        """Check that training can use sentences: UserError as in `checked_ids`."""
        checked_ids(self.concept, self._tokenizers, templates)

    def example(self, name: str, template: str, flipped: bool = False, crop: int = 0) -> Example:
        """The picture `name` with a sentence that has `{}` for the word.

        Args:
            crop: the number of the pass over the pictures; only `random_crop` depends on it.
        """
        original, settings = load_image(self.concept, name), self.concept.training
        draw = crop_draw(settings, self.names.index(name), crop if settings.random_crop else None)
        tokenizer = self._tokenizers[0]
        filled = fill(self.concept, template)
        return Example(
            picture=name,
            original=original,
            image=to_image(preprocess(original, settings, self.resolution, flipped, draw)),
            sentence=template.replace("{}", self.concept.placeholder_token),
            tokens=pieces(tokenizer, filled)[: most_tokens(tokenizer)],
            cut_off=unread(tokenizer, filled),
        )
