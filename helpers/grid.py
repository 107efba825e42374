"""Contact sheets: many pictures as one, with captions, made with Pillow."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .described import Described, described

GAP = 4
_LINE = 16


def image_grid(
    images: Sequence[Image.Image],
    columns: int,
    captions: Sequence[str] | None = None,
    cell: int | None = None,
    alt: str | None = None,
) -> Described:
    """Lay pictures out row by row on white.

    Args:
        images: RGB pictures, any sizes; each is fitted into a square cell.
        columns: pictures in a row.
        captions: a line under each picture, cut where it is wider than the cell.
        cell: side of a cell in pixels; the first picture's longer side if None.
        alt: what the sheet shows, in words; its captions if None.

    Returns:
        One RGB picture of `columns` x ceil(len(images) / columns) cells.
    """
    if not images:
        raise ValueError("there are no pictures to lay out")
    cell = cell or max(images[0].size)
    line = _LINE if captions else 0
    rows = -(-len(images) // columns)
    step_x, step_y = cell + GAP, cell + line + GAP
    sheet = Image.new("RGB", (columns * step_x - GAP, rows * step_y - GAP), "white")
    for index, image in enumerate(images):
        left, top = index % columns * step_x, index // columns * step_y
        fitted = _fit(image, cell)
        sheet.paste(fitted, (left + (cell - fitted.width) // 2, top + (cell - fitted.height) // 2))
        if captions:
            _write(sheet, captions[index], left, top + cell, cell)
    return described(sheet, alt or _in_words(len(images), columns, captions))


def _in_words(count: int, columns: int, captions: Sequence[str] | None) -> str:
    counted = "One picture" if count == 1 else f"{count} pictures, {min(columns, count)} in a row"
    return f"{counted}: {', '.join(captions)}." if captions else f"{counted}."


def _fit(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # An enlarged miniature picture keeps its pixels sharp at whole multiples.
    sharp = scale >= 2 and scale == int(scale)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def _write(sheet: Image.Image, text: str, left: int, top: int, width: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    while text and draw.textlength(text, font=font) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    draw.text((left + width / 2, top + 2), text, fill="#333333", font=font, anchor="ma")
