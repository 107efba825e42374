"""A word inside a picture, as AUTOMATIC1111 keeps one in a PNG file.

It is there twice: as the text chunk `sd-ti-embedding` (JSON in base64), and, for pages that drop text
chunks, as compressed JSON in the four low bits of a block of pixels at each side of the picture. The
format is that of AUTOMATIC1111's `modules/textual_inversion/image_embedding.py`.
"""

import base64
import binascii
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from ..common.errors import UserError

CHUNK = "sd-ti-embedding"
_TENSOR = "TORCHTENSOR"
_STRIPE = (512, 256)  # pixels of the picture in the middle
_MOST_JSON = 64_000_000  # bytes; 75 vectors of XL take a quarter of that


def word_picture(content: dict[str, Any], rows: torch.Tensor) -> bytes:
    """A PNG file that holds a word.

    Args:
        content: what a `.pt` file of AUTOMATIC1111 would hold: tensors, numbers, texts and dictionaries.
        rows: (vectors, width), to be shown as stripes, red above zero and blue under it.
    """
    text = json.dumps(content, default=lambda tensor: {_TENSOR: tensor.tolist()}).encode()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(CHUNK, base64.b64encode(text).decode())
    file = io.BytesIO()
    Image.fromarray(_beside(_stripes(rows), text)).save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def word_in_picture(path: Path) -> dict[str, Any]:
    """What a picture holds as a word, from its text or else from its pixels.

    Raises:
        UserError: it is no picture, or holds no word.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(CHUNK)
            packed = base64.b64decode(text) if text else _from_pixels(np.asarray(image.convert("RGB")))
        content = json.loads(packed, object_hook=_tensors)
    except (OSError, ValueError, zlib.error, binascii.Error, Image.DecompressionBombError) as error:
        raise _no_word(path) from error
    if not isinstance(content, dict):
        raise _no_word(path)
    return content


def _no_word(path: Path) -> UserError:
    return UserError(f"{path.name} is a picture without a word in it: choose an embedding's file.")


def _tensors(part: dict[str, Any]) -> Any:
    return torch.tensor(part[_TENSOR]) if _TENSOR in part else part


def _stripes(rows: torch.Tensor) -> np.ndarray:
    """The numbers as colours, uint8 (height, width, 3), never black: black columns end the blocks."""
    share = (rows.float() / rows.abs().max().clamp(min=1e-9)).numpy()
    red, blue = np.clip(1 + share, 0, 1), np.clip(1 - share, 0, 1)
    colours = np.stack([red, np.minimum(red, blue), blue], axis=-1)
    image = Image.fromarray((16 + 239 * colours).astype(np.uint8))
    return np.asarray(image.resize(_STRIPE, Image.Resampling.NEAREST))


def _beside(picture: np.ndarray, text: bytes) -> np.ndarray:
    """Low halves of the bytes in a block at the left, high halves at the right, a black column between."""
    height = len(picture)
    packed = np.frombuffer(zlib.compress(text, 9), np.uint8)
    columns = -(-len(packed) // (3 * height))
    packed = np.resize(packed, 3 * height * columns).reshape(height, columns, 3)
    black = np.zeros((height, 1, 3), np.uint8)
    low, high = (_scrambled(half) | 0x80 for half in (packed & 0x0F, packed >> 4))
    return np.concatenate([low, black, picture, black, high], axis=1)


def _from_pixels(pixels: np.ndarray) -> bytes:
    """The JSON in the blocks beside a picture.

    Raises:
        ValueError, zlib.error: there are no blocks.
    """
    lit = (pixels > 0).all(axis=2)
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not len(rows):
        raise ValueError("black")
    halves = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & 0x0F
    black = np.flatnonzero(halves.sum(axis=(0, 2)) == 0)
    if len(black) < 2:
        raise ValueError("no blocks")
    low, high = _scrambled(halves[:, : black[0]]), _scrambled(halves[:, black[-1] + 1 :])
    if low.shape != high.shape:
        raise ValueError("blocks of two sizes")
    return zlib.decompressobj().decompress(((high << 4) | low).tobytes(), _MOST_JSON)


def _scrambled(halves: np.ndarray) -> np.ndarray:
    """Each number of four bits by exclusive or with one of a fixed random row; twice is as before."""
    numbers = np.empty(halves.size, np.uint8)
    seed = 0
    for place in range(halves.size):  # a linear congruential generator, with AUTOMATIC1111's constants
        seed = (1664525 * seed + 1013904223) % 2**32
        numbers[place] = seed % 255
    return halves ^ (numbers.reshape(halves.shape) & 0x0F)
