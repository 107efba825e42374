"""Small pictures for a page, each with a text in its place for a screen reader."""

import base64
import html
import io

from PIL import Image

SIDE = 192  # pixels on the page
_FADED = 60  # of 255


def thumbnail(image: Image.Image) -> Image.Image:
    """A copy whose longer side is `SIDE` pixels at most."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def fade_outside(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The picture, nearly transparent outside `box` (left, top, right, bottom): dim on any page."""
    opacity = Image.new("L", image.size, _FADED)
    opacity.paste(255, box)
    faded = image.copy()
    faded.putalpha(opacity)
    return faded


def as_html(image: Image.Image, alt: str, side: int = SIDE) -> str:
    """An `<img>` that fills a square of `side` pixels as far as its shape allows."""
    data = base64.b64encode(as_png(image)).decode()
    sharp = "image-rendering:pixelated;" * (2 * max(image.size) <= side)  # as the miniature's pictures
    style = f"width:{side}px;height:{side}px;object-fit:contain;{sharp}"
    return f'<img style="{style}" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def as_png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
