"""The pictures and sentences that the network is shown. Each step is a function of its own."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .captions import captions_of
from .concept import Concept, TrainingSettings
from .images import image_paths, load_images
from .tokens import expand_prompt

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


def prompt_ids(tokenizer: Any, prompt: str) -> torch.Tensor:
    """Token ids of a sentence, int64 (length,), padded or cut to the tokenizer's length."""
    return tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]


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


def to_pixel_values(image: Image.Image) -> torch.Tensor:
    """RGB bytes 0..255 to float32 (3, height, width) in -1..1, as the VAE reads them."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return pixels.permute(2, 0, 1) / 127.5 - 1


def to_image(pixel_values: torch.Tensor) -> Image.Image:
    """The way back from `to_pixel_values`; what lies outside -1..1 is cut off."""
    pixels = ((pixel_values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return Image.fromarray(pixels.permute(1, 2, 0).to(torch.uint8).numpy())


def _random_square(image: Image.Image, draw: random.Random) -> Image.Image:
    side = round(min(image.size) * draw.uniform(SMALLEST_RANDOM_CROP, 1))
    return _square(image, side, draw.random(), draw.random())


def _square(image: Image.Image, side: int, from_left: float, from_top: float) -> Image.Image:
    """A square; `from_left` and `from_top` say where in the free space, 0 to 1."""
    left, top = round((image.width - side) * from_left), round((image.height - side) * from_top)
    return image.crop((left, top, left + side, top + side))
