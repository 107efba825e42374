"""Is it the same picture again? A perceptual hash survives another size, format or quality.

The hash is the usual pHash: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions", section 3.2.1, with the 8 x 8 lowest frequencies, as in the library ImageHash (`phash`). It sees
grey values only, so two photos of one toy on a red and on a purple table would be the same to it: the colours
of a thumbnail have to agree too.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

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
