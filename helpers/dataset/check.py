"""Decode a picture's file from anywhere, or say why it can't be used; tell whether two are the same."""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

from ..common.errors import UserError

# Formats that Pillow reads by itself. Others may start a program (EPS) or hold no picture (PDF).
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
_MOST_PIXELS = 64_000_000
_TOO_MANY_PIXELS = f"It has more than {_MOST_PIXELS // 1_000_000} megapixels: make it smaller first."
_CUT_OFF = "The file is damaged or cut off: fetch it again, save it again as PNG, or leave it out."
_DARKEST = 16  # what the brightest pixel has to reach, of 255
_BEGINS = re.compile(rb"\x89PNG|\xff\xd8|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
_HEIC = re.compile(rb"....ftyp(heic|heix|mif1|msf1|heim|heis|hevc)", re.DOTALL)
_PAGE = re.compile(rb"\s*<(!doctype|html|head|\?xml|svg)", re.IGNORECASE)


def open_picture(data: bytes, smallest: int = 1) -> Image.Image:
    """Decode the bytes of a file, turn it upright, flatten it on white, and convert it to 8-bit sRGB.

    Args:
        smallest: the minimum of the shorter side, in pixels.

    Returns:
        An RGB picture without metadata; the first frame of an animation.

    Raises:
        UserError: it does not open, is damaged, black, fully transparent, too small, larger than 64
            megapixels, or grey with more than 8 bits.
    """
    image = _opened(data)
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise UserError(_TOO_MANY_PIXELS)
    if min(width, height) < smallest:
        raise UserError(f"It has {width} x {height} pixels: each side needs at least {smallest}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # they name Pillow's own files
            image.load()
            if _is_torn(image, data):
                raise UserError(_CUT_OFF)
            image = _rgb(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise anything in Pillow's decoders
        raise UserError(_CUT_OFF) from error
    if max(high for _, high in image.getextrema()) < _DARKEST:
        raise UserError("It is almost all black: save it again with 8 bits per colour, or leave it out.")
    bare = Image.new("RGB", image.size)  # without metadata
    bare.paste(image)
    return bare


def _opened(data: bytes) -> Image.Image:
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(_TOO_MANY_PIXELS) from error
    except Exception as error:  # as above
        raise UserError(_no_picture(data)) from error


def _no_picture(data: bytes) -> str:
    if _PAGE.match(data[:512]):
        return "This is a web page, not a picture: open it, and copy the address of the picture itself."
    if _HEIC.match(data):
        return "This is a HEIC photo: save it as JPEG first (most phones can share it so)."
    if not data:
        return "The file is empty."
    if _BEGINS.match(data):
        return "It is damaged or cut off, or of a rare kind: fetch it again, or save it again as PNG."
    return "This can't be opened as a picture: use PNG, JPEG or WebP."


# A file that can be decoded may still have lost its end. Decoders refuse a file that is too short, but a
# download that broke off may have got its full length before its bytes. It then ends in zeros, which most
# decoders take for pixels.
_TAIL_DIVISOR = 100  # of a file's length; only a black picture's complete file ends in that many zeros
_FEWEST_ZEROS = 32
_FILLER = bytes.fromhex("5aa5339c") * 64  # any bits, which become pixels where pixels are missing


def _is_torn(image: Image.Image, data: bytes) -> bool:
    if image.format == "JPEG":
        return _stops_halfway(image, data)
    if image.format == "PNG":  # it has checksums, which decoding does not check
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        return False
    may_be_any_colour = image.mode in ("1", "P")
    return not may_be_any_colour and data.endswith(bytes(max(_FEWEST_ZEROS, len(data) // _TAIL_DIVISOR)))


def _stops_halfway(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG has an end, but not all of its pixels: libjpeg makes the missing ones grey.

    In a complete one, bytes inserted before the end change no pixel.
    """
    scan = 2  # the first scan begins after the segments, one of which may contain a small JPEG
    while data[scan + 1] != 0xDA:
        scan += 2 + int.from_bytes(data[scan + 2 : scan + 4])
    end = data.find(b"\xff\xd9", scan)
    if end < 0:
        return True
    filled = Image.open(io.BytesIO(data[:end] + _FILLER + data[end:]), formats=["JPEG"])
    try:
        return filled.tobytes() != image.tobytes()
    except OSError:  # its decoder read the end as pixels, after the filler
        return True


def _rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):  # grey, which Pillow would clip at 255
        raise UserError("It has more than 8 bits per pixel of grey: save it again with 8 bits per colour.")
    if image.has_transparency_data:
        image = _on_white(image)
    if profile:
        image = _to_srgb(image.convert("RGB") if image.mode == "P" else image, profile)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    kind = "L" if image.mode in ("LA", "La") else "RGB"  # grey stays grey, for its profile
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[1] < _DARKEST:
        raise UserError("It is transparent all over: save it again without transparency, or leave it out.")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert(kind)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Photos of many phones are in Display P3: without their profile, their colours would fade."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # the profile is damaged, or for another mode


# Whether two pictures are the same: a perceptual hash, which does not depend on size, format or quality.
_SIDE = 32
_LOWEST = 8
_MOST_BITS = 6  # of 64
_MOST_COLOUR = 10.0  # mean difference in grey levels, of 255
_MOST_OF_IT = 0.28  # the same, as a fraction of `standing_out`
_CELLS = 16
_MOST_IN_A_CELL = 60.0  # grey levels; a JPEG quality of 5 and a palette of 8 colours stay below
_NOISE = 0.1  # grey levels, between two pictures of one colour
# The lowest rows of the discrete cosine transform (type II, unscaled), shape (8, 32).
_COSINES = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(_LOWEST)[:, None] / (2 * _SIDE))


@dataclass(frozen=True)
class Fingerprint:
    """What `alike` compares: `bits`, bool (8, 8); `colours`, float (16, 16, 3) in 0..255."""

    bits: np.ndarray
    colours: np.ndarray

    @property
    def standing_out(self) -> float:
        """The mean difference from the background's colour, in grey levels."""
        return np.abs(self.colours - np.median(self.colours, axis=(0, 1))).mean()


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an RGB picture of any size."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)
    frequencies = _COSINES @ grey @ _COSINES.T
    thumbnail = image.resize((_CELLS, _CELLS), Image.Resampling.BOX)
    # The first frequency is the mean brightness, not a part of the shape: the median is without it.
    return Fingerprint(frequencies > np.median(frequencies.ravel()[1:]), np.asarray(thumbnail, np.float64))


def alike(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two pictures look the same: scene, crop and colours.

    A small thing on a white page is a small part of the picture, so it also matters how much of the thing
    differs, and whether any single cell differs clearly.
    """
    bits = np.count_nonzero(one.bits != other.bits)
    cells = np.abs(one.colours - other.colours).mean(axis=2)
    thing = max(one.standing_out, other.standing_out)
    is_near = bits <= _MOST_BITS and cells.max() <= _MOST_IN_A_CELL
    return is_near and cells.mean() <= min(_MOST_COLOUR, max(_MOST_OF_IT * thing, _NOISE))
