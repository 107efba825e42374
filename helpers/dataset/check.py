"""Bytes of unknown origin -> an upright RGB picture, or the sentence that says why not."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ..common.errors import UserError

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


# Is it the same picture again? A perceptual hash survives another size, format or quality.
_SIDE = 32
_LOWEST = 8
_MOST_BITS = 6  # of 64
_MOST_COLOUR = 10.0  # mean difference in grey levels, of 255


@dataclass(frozen=True)
class Fingerprint:
    """What `alike` compares: `bits`, bool (8, 8); `colours`, float (8, 8, 3) in 0..255."""

    bits: np.ndarray
    colours: np.ndarray


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an RGB picture of any size."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)
    cosines = _cosines()
    frequencies = cosines @ grey @ cosines.T
    thumbnail = image.resize((_LOWEST, _LOWEST), Image.Resampling.BOX)
    # The first frequency is the mean brightness, no part of the shape: it is left out of the median.
    return Fingerprint(frequencies > np.median(frequencies.ravel()[1:]), np.asarray(thumbnail, np.float64))


def alike(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether the two are one picture to the eye: the same scene, cut and colours."""
    bits = np.count_nonzero(one.bits != other.bits)
    return bits <= _MOST_BITS and np.abs(one.colours - other.colours).mean() <= _MOST_COLOUR


def _cosines() -> np.ndarray:
    """The lowest rows of the discrete cosine transform (type II, unscaled), shape (8, 32)."""
    place, frequency = np.arange(_SIDE), np.arange(_LOWEST)[:, None]
    return np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE))
