"""What all pictures of a concept have in common besides the thing itself: the word would mean that, too.

Statistics of small copies, without a network: the rim for the background, its hue for the light, the edges
for the pose. They can be wrong, so they only warn.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..concept.concept import Concept
from ..model.base_model import MINIATURE, load_resolution, load_vae
from ..model.vae import decode, encode, psnr
from .dataset import crop, preprocess
from .images import load_images

FEWEST = 3  # pictures; fewer may be alike by chance
_SIDE, _RIM, _CELL = 64, 8, 2  # pixels of the small copies
_MOST = 0.8  # the fraction of the pictures that has to be alike
_SAME_RIM = 12  # grey levels of 255
_GREY, _COLOURED = 5, 25  # the same: how far red, green and blue lie apart
_SAME_HUE = 30  # degrees
_ONE_HUE = 0.8  # 1: every pixel has the same hue
_STRONGEST_EDGE = 40  # grey levels a pixel; stronger ones count no more
_SAME_EDGES = 0.78  # fraction of the edges that is in every picture
_HUES = "red orange yellow green green teal blue blue blue purple pink pink".split()  # every 30 degrees
_NO_COLOUR = (
    "have no colours, so what is drawn for the word will be grey too: add some in colour, or say so in "
    "their captions, as in “a black and white photo of {}”."
)
_ONE_BACKGROUND = (
    "have nearly the same background, so the word will mean it too: take some in front of another, or "
    "name it in their captions, as in “a photo of {} on a red table”."
)
_ONE_COLOUR = (
    "are {hue} all around, so the word will bring that colour along: take some in another light or "
    "place, or name the colour in their captions."
)
_ONE_POSE = (
    "show the same outline in the same place, so the word will hardly be drawn in another pose: add some "
    "from another side, nearer or farther away."
)
# Of 48 drawn toys' pictures (seeds 100 to 103) no five came under 27.8 dB on average. `python -m
# tests.bench.outside PICTURES...` measures others: of the 28 that scikit-image and scikit-learn ship, two
# smooth ones, `moon` and `cell`, come over 26 and get no warning.
_LEAST_DB = 26.0


def outside_the_model(concept: Concept, images: Sequence[Image.Image] | None = None) -> str:
    """A sentence if the miniature's autoencoder can't draw the pictures, so that no word can; else empty.

    It knows drawn toys only. Other base models are not checked: their autoencoders were trained on photos.

    Args:
        images: to check instead of the concept's own.
    """
    if concept.base_model != MINIATURE:
        return ""
    side = concept.training.resolution or load_resolution(concept.base_model)
    originals = torch.stack(
        [preprocess(one, concept.training, side) for one in images or load_images(concept)]
    )
    vae = load_vae(concept.base_model)
    returned = decode(vae, encode(vae, originals).mean)
    quality = np.mean([psnr(*pair) for pair in zip(originals, returned, strict=True)])
    if quality >= _LEAST_DB:
        return ""
    return (
        "These pictures are outside what the miniature can draw: its autoencoder gives them back at "
        f"{quality:.0f} dB, and its own toys at {_LEAST_DB:.0f} or more. No word can bring back what is lost "
        "there: use pictures of its toys, or another BASE_MODEL in notebook 2."
    )


def warnings_of(concept: Concept) -> list[str]:
    """A sentence about each thing that the pictures have in common by accident, with what to do."""
    images = [crop(image, concept.training) for image in load_images(concept)]
    pictures = [
        np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64) for image in images
    ]
    total = len(pictures)
    if total < FEWEST:
        return []
    rims = [_rim(picture) for picture in pictures]
    hue, of_one_hue = _shared_hue(rims)
    around = [
        (sum(_colourfulness(picture) <= _GREY for picture in pictures), _NO_COLOUR),
        (_with_one_rim(rims), _ONE_BACKGROUND),
        (of_one_hue, _ONE_COLOUR.replace("{hue}", hue)),
    ]
    shared = [one for one in around if one[0] >= max(FEWEST, _MOST * total)][:1]
    if _shared_edges(pictures) >= _SAME_EDGES:
        shared.append((total, _ONE_POSE))
    return [f"{_counted(count, total)} {what}" for count, what in shared]


def _counted(count: int, total: int) -> str:
    return f"All {total} pictures" if count == total else f"{count} of the {total} pictures"


def _rim(picture: np.ndarray) -> np.ndarray:
    inside = np.zeros(picture.shape[:2], bool)
    inside[_RIM:-_RIM, _RIM:-_RIM] = True
    return picture[~inside]


def _colourfulness(pixels: np.ndarray) -> float:
    return np.ptp(pixels, axis=-1).mean()


def _with_one_rim(rims: Sequence[np.ndarray]) -> int:
    """How many have nearly the same rim.

    Its sorted values are compared: a background looks the same from anywhere, and the thing may touch a rim.
    """
    values = np.stack([np.sort(rim, axis=0) for rim in rims])
    apart = np.median(np.abs(values[:, None] - values[None]).mean(axis=-1), axis=-1)
    return (apart <= _SAME_RIM).sum(axis=1).max()


def _shared_hue(rims: Sequence[np.ndarray]) -> tuple[str, int]:
    """The most frequent hue of the rims, as a word, and its count; without rims that are grey or motley."""
    hues = []
    for rim in rims:
        red, green, blue = rim.T
        pixels = red - (green + blue) / 2 + 1j * np.sqrt(3) / 2 * (green - blue)  # the angle 0 is red
        is_one = abs(pixels.sum()) >= _ONE_HUE * np.abs(pixels).sum()
        if is_one and _colourfulness(rim) >= _COLOURED:
            hues.append(np.degrees(np.angle(pixels.sum())) % 360)
    if not hues:
        return "", 0
    apart = np.abs((np.subtract.outer(hues, hues) + 180) % 360 - 180)
    alike = (apart <= _SAME_HUE).sum(axis=1)
    return _HUES[round(hues[alike.argmax()] / 30) % 12], alike.max()


def _shared_edges(pictures: Sequence[np.ndarray]) -> float:
    """The fraction of the edges that is in every picture, each as it is or mirrored."""
    first, *others = map(_edges, pictures)
    turned = [max(one, one[:, ::-1], key=lambda way: (way * first).sum()) for one in others]
    edges = np.stack([first, *turned])
    return edges.min(axis=0).sum() / max(edges.sum(axis=(1, 2)).min(), 1e-9)


def _edges(picture: np.ndarray) -> np.ndarray:
    """The gradient of the brightness in each cell, (32, 32)."""
    down, along = np.gradient(picture.mean(axis=-1))
    strength = np.minimum(np.hypot(down, along), _STRONGEST_EDGE)
    cells = _SIDE // _CELL
    return strength.reshape(cells, _CELL, cells, _CELL).mean(axis=(1, 3))
