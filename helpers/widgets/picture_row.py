"""Small pictures in a row, as HTML: each with a text in its place, on no ground of its own."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

_SHOWN = 128  # pixels
_KEPT = 192  # for screens of a higher resolution


def picture_row(caption: str, images: Sequence[Image.Image], texts: Sequence[str]) -> str:
    """A caption and below it pictures.

    Args:
        images: any sizes; each is fitted into a square.
        texts: what each shows, read out by a screen reader and shown under the mouse.
    """
    row = "".join(_picture(image, text) for image, text in zip(images, texts, strict=True))
    return (
        f'<figure style="margin:4px 16px 4px 0"><figcaption>{html.escape(caption)}</figcaption>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px">{row}</div></figure>'
    )


def _picture(image: Image.Image, text: str) -> str:
    text = html.escape(text)
    return (
        f'<img alt="{text}" title="{text}" src="{_address(image)}" '
        f'style="width:{_SHOWN}px;height:{_SHOWN}px;object-fit:contain">'
    )


def _address(image: Image.Image) -> str:
    """The picture itself as an address: small ones exactly, others as JPEG."""
    kind = "png" if max(image.size) <= _SHOWN else "jpeg"
    small, content = image.convert("RGB"), io.BytesIO()
    small.thumbnail((_KEPT, _KEPT))
    small.save(content, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
