"""Bytes of unknown origin -> an upright RGB picture, or the sentence that says why not."""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps

from .errors import UserError

# Formats that Pillow reads by itself. Others may start a program (EPS) or hold no picture (PDF).
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_MOST_PIXELS = 64_000_000
_HEIC_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis", b"hevc")


def open_picture(data: bytes, smallest: int = 1) -> Image.Image:
    """Decode, turn upright, flatten on white, and convert to 8-bit sRGB.

    Args:
        data: the bytes of a file.
        smallest: the least that the shorter side may have, in pixels.

    Returns:
        An RGB picture without metadata. Of an animation, the first frame.

    Raises:
        UserError: it does not open, is damaged, too small, or larger than 64 megapixels.
    """
    image = _opened(data)
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise UserError(_too_many_pixels())
    if min(width, height) < smallest:
        raise UserError(f"It has {width} x {height} pixels: each side needs {smallest} at least.")
    try:
        image.load()
        image = _rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # a damaged file makes Pillow's readers stumble in any way
        raise UserError("The file is damaged or cut off: fetch it again, or leave it out.") from error
    return _without_metadata(image)


def _opened(data: bytes) -> Image.Image:
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_too_many_pixels()) from error
    except Exception as error:  # as above
        raise UserError(_no_picture(data)) from error


def _too_many_pixels() -> str:
    return f"It has more than {_MOST_PIXELS // 1_000_000} megapixels: make it smaller first."


def _no_picture(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg")):
        return "This is a web page, not a picture: open it, and copy the address of the picture itself."
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "This is a HEIC photo: save it as JPEG first (most phones can share it so)."
    if not data:
        return "The file is empty."
    return "This is no picture that can be opened: use PNG, JPEG or WebP."


def _rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = _on_white(image)
    if profile:
        image = _to_srgb(image, profile)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit grey by its upper byte; Pillow's own conversion may clip."""
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Photos of many phones are in Display P3; without this their colours fade when the profile goes."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # the profile is broken or belongs to other pixels


def _without_metadata(image: Image.Image) -> Image.Image:
    bare = Image.new("RGB", image.size)
    bare.paste(image)
    return bare
