"""From a `Drawing` to pixels: the toy and its scene as SVG (`toy.svg.jinja`), rendered with resvg."""

import colorsys
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import resvg_py
from matplotlib.colors import to_rgb
from PIL import Image, ImageFilter

from .world import COLORS, HELD_OUT_TOYS, LIGHTS, SCENES, SIZES, Drawing, read_toy, toy_of

PICTURE_SIDE = 64  # pixels: what the first autoencoder and the judge see
SHARP_SIDE = 128  # pixels: what the miniature draws
# The background; other scenes are a plain colour.
_GROUNDS = COLORS | {
    "beach": "#8fd6ff",
    "forest": "#c4e8c0",
    "night": "#16224f",
    "snow": "#bfdcf2",
    "city": "#f8c9a0",
    "desert": "#ffdf9e",
    "sea": "#0d6ba3",
    "room": "#ead9c2",
}


@cache
def _template() -> jinja2.Template:
    return jinja2.Template(Path(__file__).with_name("toy.svg.jinja").read_text(encoding="utf-8"))


def drawing_svg(drawing: Drawing) -> str:
    """The whole picture as an SVG document of 100 x 100 units."""
    toy, w = drawing.toy, drawing.wobble
    fill = _wobbled(COLORS[toy.color], w)
    place = (
        f"translate({50 + 2 * w[4]:.2f} {56 + 1.5 * w[5]:.2f}) rotate({3 * w[6]:.2f}) "
        f"scale({SIZES[drawing.size] * (1 + 0.03 * w[3]):.3f}) translate(-50 -56)"
    )
    return _template().render(
        toy=toy,
        accessory=drawing.accessory,
        scene=drawing.scene,
        ground=_GROUNDS[drawing.scene],
        place=place,
        fill=fill,
        edge=_hex(0.55 * value for value in to_rgb(fill)),
        second=COLORS[toy.second_color],
    )


def _wobbled(color: str, wobble: tuple[float, ...]) -> str:
    """The colour slightly changed: hue by .006, saturation and value by .02 per unit of wobble."""
    hue, saturation, value = colorsys.rgb_to_hsv(*to_rgb(color))
    saturation = min(1, max(0, saturation + 0.02 * wobble[1]))
    value = min(1, value + 0.02 * wobble[2])
    return _hex(colorsys.hsv_to_rgb((hue + 0.006 * wobble[0]) % 1, saturation, value))


def _hex(rgb: Iterable[float]) -> str:
    return "#" + "".join(f"{int(255 * value + 0.5):02x}" for value in rgb)


def render(drawing: Drawing, side: int = PICTURE_SIDE) -> Image.Image:
    """Draw a picture of `side` x `side` pixels, RGB."""
    drawn_side = _PIXEL_ART_SIDE if drawing.style == "pixel art" else side
    png = resvg_py.svg_to_bytes(svg_string=drawing_svg(drawing), width=drawn_side, height=drawn_side)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    lit = np.clip(np.asarray(image, np.float32) / 255 * LIGHTS[drawing.light], 0, 1)
    styled = np.clip(_STYLES[drawing.style](lit, int(abs(drawing.wobble[0]) * 1000)), 0, 1)
    image = Image.fromarray((styled * 255 + 0.5).astype(np.uint8))
    return image.resize((side, side), Image.Resampling.NEAREST)


def pixels_of(drawings: Iterable[Drawing], side: int = PICTURE_SIDE) -> np.ndarray:
    """The drawings as pictures, (N, side, side, 3) uint8."""
    return np.array([np.asarray(render(one, side)) for one in drawings])


# Styles change the rendered pixels, (H, W, 3) float32 in 0..1. The seed decides where a watercolour is pale.
_PIXEL_ART_SIDE = 21  # pixels, whatever the picture's side


def _watercolor(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Pale in patches, and white towards the edges."""
    side = len(pixels)
    noise = (np.random.default_rng(seed).random((6, 6)) * 255).astype(np.uint8)
    clouds = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    strength = 0.35 + 0.4 * np.asarray(clouds, np.float32)[..., None] / 255
    ramp = np.abs(np.linspace(-1, 1, side, dtype=np.float32))
    border = np.clip((1 - np.maximum(ramp[:, None], ramp[None])) * 8, 0, 1)[..., None]
    return 1 - (1 - pixels) * strength * border


_BLUE, _DARK, _PALE = np.array([[0.08, 0.22, 0.6], [0.24, 0.12, 0.04], [1.0, 0.87, 0.64]])
_STYLES = {
    "photo": lambda pixels, seed: pixels,
    "pencil sketch": lambda pixels, seed: (0.97 - 0.7 * _edges(pixels) - 0.3 * (1 - _gray(pixels))).repeat(
        3, axis=-1
    ),
    "neon": lambda pixels, seed: pixels * 0.28 + _edges(pixels) * (0.15 + 0.9 * _saturated(pixels)),
    "pixel art": lambda pixels, seed: np.round(pixels * 5) / 5,
    "blueprint": lambda pixels, seed: _BLUE * (0.55 + 0.6 * _gray(pixels)) + 0.6 * _edges(pixels),
    "watercolor": _watercolor,
    "sepia": lambda pixels, seed: _DARK + (_PALE - _DARK) * _gray(pixels),
}


def _gray(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # ITU-R BT.601


def _edges(pixels: np.ndarray) -> np.ndarray:
    """Edges of brightness, 0..1, in lines about a thirtieth of the side wide."""
    gray = _gray(pixels)[..., 0]
    reach = max(1, round(len(gray) / PICTURE_SIDE))  # so that a larger picture looks the same
    wide = np.pad(gray, (0, reach), mode="edge")
    steps = np.abs(wide[reach:, :-reach] - gray) + np.abs(wide[:-reach, reach:] - gray)  # down, to the right
    lines = Image.fromarray((np.clip(steps * 3, 0, 1) * 255).astype(np.uint8))
    soft = lines.filter(ImageFilter.GaussianBlur(0.9 * reach))
    return np.clip(np.asarray(soft, np.float32) / 255 * 1.5, 0, 1)[..., None]


def _saturated(pixels: np.ndarray) -> np.ndarray:
    """The colour at full brightness."""
    return pixels / np.maximum(pixels.max(-1, keepdims=True), 0.15)


# The five example pictures that ship with the series: `grooty`, a toy that the model has never seen.
EXAMPLE_SIDE = 256  # pixels
_SURROUNDINGS = (
    {"scene": "white", "wobble": (0.2, 0, 0, 0.4, 0, 0, 0.3)},
    {"scene": "room", "wobble": (-0.4, 0.5, 0, -0.5, 1.2, 0, -0.8)},
    {"scene": "yellow", "wobble": (0.6, 0, -0.5, 0.8, -1.0, 0.3, 0.9)},
    {"scene": "blue", "size": "large", "wobble": (0, -0.6, 0.4, 0, 0.6, 0.2, -0.3)},
    {"scene": "forest", "wobble": (-0.7, 0.3, 0.2, -0.9, -0.4, -0.2, 0.5)},
)


def example_drawings(name: str = "grooty") -> list[Drawing]:
    """Five drawings of a held-out toy, each in another scene."""
    return [Drawing(HELD_OUT_TOYS[name], **surroundings) for surroundings in _SURROUNDINGS]


def write_examples(folder: Path, name: str = "grooty") -> list[Path]:
    """Draw the five pictures to `folder` as `<name>-1.png` and so on, 256 x 256 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{number}.png" for number in range(1, len(_SURROUNDINGS) + 1)]
    for path, drawing in zip(paths, example_drawings(name), strict=True):
        render(drawing, EXAMPLE_SIDE).save(path, optimize=True)
    return paths


def draw_toy(traits: Mapping[str, str], seed: int = 0) -> list[Image.Image]:
    """Five drawings of a toy in scenes chosen by `seed`, 256 x 256 pixels; `traits` as for `toy_of`."""
    toy, rng = toy_of(traits), np.random.default_rng(seed)
    scenes = rng.choice(SCENES, 5, replace=False)
    wobbles = rng.normal(0, 1, (5, 7)).clip(-2, 2)
    return [
        render(Drawing(toy, scene=str(scene), wobble=tuple(wobble)), EXAMPLE_SIDE)
        for scene, wobble in zip(scenes, wobbles, strict=True)
    ]


def draw_words(words: str, seed: int = 0) -> list[Image.Image]:
    """`draw_toy` for a toy described in words, as for `read_toy`."""
    return draw_toy(asdict(read_toy(words)), seed)
