"""From a `Drawing` to pixels: the toy and its scene as SVG, rendered with resvg."""

import colorsys
import io
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageFilter

from .world import BACKGROUNDS, COLORS, HELD_OUT_TOYS, LIGHTS, SCENES, SIZES, Drawing, Toy, read_toy, toy_of

PICTURE_SIDE = 64  # pixels: what the first autoencoder and the judge see
SHARP_SIDE = 128  # pixels: what the miniature draws
_INK = "#222222"


def _star(x: float, y: float, outer: float, inner: float) -> str:
    """Points of a five-pointed star, as SVG's `polygon` takes them."""
    corners = []
    for corner in range(10):
        radius, angle = (inner if corner % 2 else outer), math.pi * corner / 5
        corners.append(f"{x + radius * math.sin(angle):.1f},{y - radius * math.cos(angle):.1f}")
    return " ".join(corners)


SHAPES = {
    "round": '<circle cx="50" cy="57" r="29"/>',
    "tall": '<rect x="32" y="20" width="36" height="68" rx="18"/>',
    "square": '<rect x="22" y="33" width="56" height="54" rx="7"/>',
    "star": f'<polygon points="{_star(50, 58, 41, 22)}" stroke-linejoin="round"/>',
    "cone": '<path d="M50 17 L82 82 Q50 94 18 82Z" stroke-linejoin="round"/>',
    "cloud": '<path d="M28 86 a16 16 0 0 1 -3 -31 a18 18 0 0 1 25 -19 a18 18 0 0 1 25 19'
    ' a16 16 0 0 1 -3 31Z"/>',
}
# For each body: the y of its top, where ears begin (x from the middle, y), and the eyes' place likewise.
PLACES_ON_BODY = {
    "round": (28, 18, 36, 12, 50),
    "tall": (20, 11, 27, 9.5, 41),
    "square": (33, 20, 36, 13, 51),
    "star": (18, 8, 36, 9.5, 54),
    "cone": (18, 9, 37, 9.5, 56),
    "cloud": (34, 17, 40, 12, 56),
}


def toy_svg(toy: Toy, accessory: str, wobble: tuple[float, ...]) -> str:
    """The toy alone, in a square of 100 x 100, standing on y = 92."""
    fill = _wobbled(COLORS[toy.color], wobble)
    edge = _darker(fill)
    paint = f'fill="{fill}" stroke="{edge}" stroke-width="3"'
    top, ear_x, ear_y, eye_x, eye_y = PLACES_ON_BODY[toy.body]
    parts = (
        _ears(toy.ears, top, ear_x, ear_y, paint, edge),
        f"<g {paint}>{SHAPES[toy.body]}</g>",
        _pattern(toy.pattern, SHAPES[toy.body], COLORS[toy.second_color], eye_y),
        _feet(toy.feet, paint),
        _eyes(toy.eyes, eye_x, eye_y),
        f'<path d="M44 {eye_y + 12} q6 6 12 0" fill="none" stroke="{_INK}" stroke-width="2.6"/>',
        _accessory(accessory, eye_y),
    )
    return "".join(parts)


def _both(left: str) -> str:
    """Something on the left, and its mirror image on the right."""
    return f'{left}<g transform="translate(100 0) scale(-1 1)">{left}</g>'


def _ears(ears: str, top: float, x: float, y: float, paint: str, edge: str) -> str:
    left = 50 - x
    if ears == "cat ears":
        return f"<g {paint}>" + _both(f'<path d="M{left - 10} {y + 6} l-1 -26 l20 15Z"/>') + "</g>"
    if ears == "bunny ears":
        ear = f'<ellipse cx="{left}" cy="{y - 14}" rx="7" ry="20"/>'
        return f"<g {paint}>{_both(ear)}</g>"
    if ears == "horns":
        horn = f'<path d="M{left - 7} {y + 4} q-14 -12 -5 -26 q3 12 16 16Z"/>'
        return f'<g fill="#fff0c8" stroke="#7a5a20" stroke-width="2.5">{_both(horn)}</g>'
    if ears == "antenna":
        stick = f'<path d="M50 {top + 6} V{top - 9}" stroke="{edge}" stroke-width="4"/>'
        ball = f'<circle cx="50" cy="{top - 11}" r="7" fill="#ff4d4d" stroke="#7d1515" stroke-width="2.5"/>'
        return stick + ball
    if ears == "leaves":
        leaf = f'<path d="M50 {top + 4} q-25 -2 -27 -21 q24 -1 27 21Z"/>'
        return f'<g fill="#53bd4a" stroke="#1f6b2c" stroke-width="2.5">{_both(leaf)}</g>'
    return ""


def _feet(feet: str, paint: str) -> str:
    if feet == "boots":
        boot = '<path d="M33 77 h14 v19 h-25 q0 -10 11 -10Z"/>'
        return f'<g fill="#ffcf21" stroke="#7a5a00" stroke-width="2.5">{_both(boot)}</g>'
    if feet == "wheels":
        wheel = (
            '<circle cx="34" cy="86" r="11" fill="#2b2b33"/><circle cx="34" cy="86" r="4.5" fill="#d8d8e0"/>'
        )
        return _both(wheel)
    return f"<g {paint}>" + _both('<ellipse cx="36" cy="89" rx="10" ry="6"/>') + "</g>"


def _pattern(pattern: str, shape: str, color: str, eye_y: float) -> str:
    if pattern == "plain":
        return ""
    if pattern == "spotted":
        spots = ((28, 64), (40, 78), (56, 80), (71, 66), (33, 44), (67, 44), (50, 30), (79, 80), (21, 80))
        marks = "".join(f'<circle cx="{x}" cy="{y}" r="5.5"/>' for x, y in spots)
    elif pattern == "striped":
        marks = "".join(f'<rect x="0" y="{y}" width="100" height="6.5"/>' for y in (26, 68, 80))
    else:
        marks = f'<ellipse cx="50" cy="{eye_y + 28}" rx="17" ry="17"/>'
    clip = f'<clipPath id="body">{shape}</clipPath>'
    return f'{clip}<g clip-path="url(#body)" fill="{color}">{marks}</g>'


def _eyes(eyes: str, x: float, y: float) -> str:
    left = 50 - x
    if eyes == "one eye":
        return (
            f'<circle cx="50" cy="{y - 2}" r="12" fill="#fff" stroke="{_INK}" stroke-width="2"/>'
            f'<circle cx="50" cy="{y - 2}" r="6" fill="{_INK}"/>'
        )
    if eyes == "big eyes":
        white = f'<circle cx="{left}" cy="{y}" r="8.5" fill="#fff" stroke="{_INK}" stroke-width="2"/>'
        return _both(f'{white}<circle cx="{left + 1}" cy="{y}" r="4" fill="{_INK}"/>')
    if eyes == "sleepy eyes":
        lid = f'<path d="M{left - 7} {y - 1} q7 8 14 0" fill="none" stroke="{_INK}" stroke-width="3.6"/>'
        return _both(lid)
    return _both(f'<circle cx="{left}" cy="{y}" r="4.2" fill="{_INK}"/>')


def _accessory(accessory: str, eye_y: float) -> str:
    y = eye_y + 19
    if accessory == "scarf":
        band = f"M24 {y - 2} q26 11 52 0 v9 q-26 11 -52 0Z M57 {y + 8} h12 l3 18 h-12Z"
        return f'<path d="{band}" fill="#e0203a" stroke="#6e0c1c" stroke-width="2"/>'
    if accessory == "bow tie":
        bow = f"M50 {y + 3} l-17 -9 v18Z M50 {y + 3} l17 -9 v18Z"
        return f'<path d="{bow}" fill="#2448d8" stroke="#0b1c50" stroke-width="2" stroke-linejoin="round"/>'
    if accessory == "balloon":
        string = '<path d="M87 34 Q84 54 76 68" fill="none" stroke="#444" stroke-width="2"/>'
        ball = '<ellipse cx="87" cy="21" rx="12" ry="14" fill="#f0283c" stroke="#7d1020" stroke-width="2"/>'
        return string + ball
    if accessory == "flag":
        pole = '<path d="M17 20 V80" stroke="#4a3a2a" stroke-width="3.5"/>'
        return f'{pole}<path d="M17 14 h-17 v20 h17Z" fill="#a03be0" stroke="#431060" stroke-width="2"/>'
    return ""


_FULL = '<rect width="100" height="100" fill="{}"/>'
_SCENES = {
    "beach": _FULL.format("#8fd6ff")
    + '<rect y="46" width="100" height="22" fill="#2b86d0"/>'
    + '<rect y="66" width="100" height="34" fill="#f5dd9c"/>'
    + '<circle cx="12" cy="13" r="9" fill="#ffe14d"/>',
    "forest": _FULL.format("#c4e8c0")
    + '<path d="M-6 72 L9 20 L24 72Z M14 72 L25 34 L36 72Z M64 72 L75 30 L86 72Z M78 72 L91 16 L104 72Z"'
    + ' fill="#23744a"/><rect y="70" width="100" height="30" fill="#5d8f3a"/>',
    "night": _FULL.format("#16224f")
    + '<circle cx="12" cy="15" r="9" fill="#f6f0c0"/><g fill="#fff"><circle cx="32" cy="9" r="2.4"/>'
    + '<circle cx="72" cy="10" r="2.4"/><circle cx="94" cy="46" r="2.4"/><circle cx="7" cy="48" r="2.4"/></g>'
    + '<rect y="78" width="100" height="22" fill="#0a1130"/>',
    "snow": _FULL.format("#bfdcf2")
    + '<rect y="66" width="100" height="34" fill="#ffffff"/><g fill="#fff"><circle cx="10" cy="14" r="4"/>'
    + '<circle cx="30" cy="8" r="4"/><circle cx="72" cy="12" r="4"/><circle cx="93" cy="48" r="4"/>'
    + '<circle cx="7" cy="44" r="4"/></g>',
    "city": _FULL.format("#f8c9a0")
    + '<g fill="#62668a"><rect x="0" y="28" width="19" height="52"/>'
    + '<rect x="22" y="46" width="13" height="34"/>'
    + '<rect x="65" y="38" width="13" height="42"/><rect x="81" y="18" width="19" height="62"/></g>'
    + '<rect y="78" width="100" height="22" fill="#4c4d58"/>',
    "desert": _FULL.format("#ffdf9e")
    + '<path d="M0 74 Q25 50 50 70 T100 64 V100 H0Z" fill="#e09a45"/>'
    + '<path d="M91 68 V36 M91 58 h-10 v-12" stroke="#2f8f4f" stroke-width="6.5" fill="none"/>',
    "sea": _FULL.format("#0d6ba3")
    + '<g fill="none" stroke="#aee6ff" stroke-width="3"><circle cx="10" cy="28" r="5"/>'
    + '<circle cx="90" cy="52" r="5"/>'
    + '<circle cx="72" cy="9" r="4"/></g><path d="M0 84 Q25 74 50 84 T100 82 V100 H0Z" fill="#dccb86"/>',
    "room": _FULL.format("#ead9c2")
    + '<rect x="3" y="8" width="26" height="28" fill="#aee0ff" stroke="#8a6b4a" stroke-width="4"/>'
    + '<rect y="74" width="100" height="26" fill="#a3683e"/>',
}


def drawing_svg(drawing: Drawing) -> str:
    """The whole picture as an SVG document of 100 x 100 units."""
    scene = _FULL.format(COLORS[drawing.scene]) if drawing.scene in BACKGROUNDS else _SCENES[drawing.scene]
    w = drawing.wobble
    scale = SIZES[drawing.size] * (1 + 0.03 * w[3])
    place = (
        f"translate({50 + 2 * w[4]:.2f} {56 + 1.5 * w[5]:.2f}) rotate({3 * w[6]:.2f}) "
        f"scale({scale:.3f}) translate(-50 -56)"
    )
    toy = toy_svg(drawing.toy, drawing.accessory, w)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
        f'{scene}<g transform="{place}">{toy}</g></svg>'
    )


def render(drawing: Drawing, side: int = PICTURE_SIDE) -> Image.Image:
    """Draw a picture of `side` x `side` pixels, RGB."""
    drawn_side = _PIXEL_ART_SIDE if drawing.style == "pixel art" else side
    png = resvg_py.svg_to_bytes(svg_string=drawing_svg(drawing), width=drawn_side, height=drawn_side)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    lit = np.clip(np.asarray(image, np.float32) / 255 * LIGHTS[drawing.light], 0, 1)
    styled = np.clip(_STYLES[drawing.style](lit, int(abs(drawing.wobble[0]) * 1000)), 0, 1)
    image = Image.fromarray((styled * 255 + 0.5).astype(np.uint8))
    return image.resize((side, side), Image.Resampling.NEAREST)


def _rgb(color: str) -> list[float]:
    return [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]


def _hex(rgb) -> str:
    return "#" + "".join(f"{int(255 * min(1, max(0, value)) + 0.5):02x}" for value in rgb)


def _darker(color: str) -> str:
    return _hex(value * 0.55 for value in _rgb(color))


def _wobbled(color: str, wobble: tuple[float, ...]) -> str:
    """The colour a little off: hue by .006, saturation and value by .02 a unit of wobble."""
    hue, saturation, value = colorsys.rgb_to_hsv(*_rgb(color))
    saturation = min(1, max(0, saturation + 0.02 * wobble[1]))
    return _hex(
        colorsys.hsv_to_rgb((hue + 0.006 * wobble[0]) % 1, saturation, min(1, value + 0.02 * wobble[2]))
    )


# The styles of the world: what is done to a picture's pixels, (H, W, 3) float32 from 0 to 1, after it was
# drawn. The seed decides where a watercolour is pale.
_PIXEL_ART_SIDE = 21  # pixels, whatever the picture's side


def _photo(pixels, seed):
    return pixels


def _pencil_sketch(pixels, seed):
    gray = 0.97 - 0.7 * _edges(pixels) - 0.3 * (1 - _gray(pixels))
    return np.repeat(gray, 3, axis=-1)


def _neon(pixels, seed):
    return pixels * 0.28 + _edges(pixels) * (0.15 + 0.9 * _saturated(pixels))


def _pixel_art(pixels, seed):
    return np.round(pixels * 5) / 5


def _blueprint(pixels, seed):
    return np.array([0.08, 0.22, 0.6]) * (0.55 + 0.6 * _gray(pixels)) + 0.6 * _edges(pixels)


def _watercolor(pixels, seed):
    """Pale in clouds, and white towards the edge of the paper."""
    side = pixels.shape[0]
    noise = (np.random.default_rng(seed).random((6, 6)) * 255).astype(np.uint8)
    clouds = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    strength = 0.35 + 0.4 * np.asarray(clouds, np.float32)[..., None] / 255
    ramp = np.abs(np.linspace(-1, 1, side, dtype=np.float32))
    border = np.clip((1 - np.maximum(ramp[:, None], ramp[None])) * 8, 0, 1)[..., None]
    return 1 - (1 - pixels) * strength * border


def _sepia(pixels, seed):
    dark, pale = np.array([0.24, 0.12, 0.04]), np.array([1.0, 0.87, 0.64])
    return dark + (pale - dark) * _gray(pixels)


_STYLES = {
    "photo": _photo,
    "pencil sketch": _pencil_sketch,
    "neon": _neon,
    "pixel art": _pixel_art,
    "blueprint": _blueprint,
    "watercolor": _watercolor,
    "sepia": _sepia,
}


def _gray(pixels: np.ndarray) -> np.ndarray:
    return (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # ITU-R BT.601


def _edges(pixels: np.ndarray) -> np.ndarray:
    """How fast the brightness changes, 0 to 1, in lines about a thirtieth of the side wide."""
    gray = _gray(pixels)[..., 0]
    reach = max(1, round(len(gray) / PICTURE_SIDE))  # so that a larger picture looks the same
    lines = Image.fromarray((np.clip(_steps(gray, reach) * 3, 0, 1) * 255).astype(np.uint8))
    soft = lines.filter(ImageFilter.GaussianBlur(0.9 * reach))
    return np.clip(np.asarray(soft, np.float32) / 255 * 1.5, 0, 1)[..., None]


def _steps(gray: np.ndarray, reach: int) -> np.ndarray:
    """By how much each pixel differs from those `reach` below it and to its right, (H, W)."""
    wide = np.pad(gray, (0, reach), mode="edge")
    down = np.abs(wide[reach:, :-reach] - gray)
    right = np.abs(wide[:-reach, reach:] - gray)
    return down + right


def _saturated(pixels: np.ndarray) -> np.ndarray:
    """The colour at full brightness."""
    return pixels / np.maximum(pixels.max(-1, keepdims=True), 0.15)


# The five pictures that ship as the series' example: `grooty`, a toy that the model has never seen.
EXAMPLE_SIDE = 256  # pixels
_SURROUNDINGS = (
    {"scene": "white", "wobble": (0.2, 0, 0, 0.4, 0, 0, 0.3)},
    {"scene": "room", "wobble": (-0.4, 0.5, 0, -0.5, 1.2, 0, -0.8)},
    {"scene": "yellow", "wobble": (0.6, 0, -0.5, 0.8, -1.0, 0.3, 0.9)},
    {"scene": "blue", "size": "large", "wobble": (0, -0.6, 0.4, 0, 0.6, 0.2, -0.3)},
    {"scene": "forest", "wobble": (-0.7, 0.3, 0.2, -0.9, -0.4, -0.2, 0.5)},
)


def example_drawings(name: str = "grooty") -> list[Drawing]:
    """Five drawings of a held-out toy, each somewhere else."""
    return [Drawing(HELD_OUT_TOYS[name], **surroundings) for surroundings in _SURROUNDINGS]


def write_examples(folder: Path, name: str = "grooty") -> list[Path]:
    """Draw the five pictures to `folder` as `<name>-1.png` and so on, 256 x 256 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{number}.png" for number in range(1, len(_SURROUNDINGS) + 1)]
    for path, drawing in zip(paths, example_drawings(name), strict=True):
        render(drawing, EXAMPLE_SIDE).save(path, optimize=True)
    return paths


def draw_toy(traits: Mapping[str, str], seed: int = 0) -> list[Image.Image]:
    """Five drawings of a toy, each in another place, 256 x 256 pixels.

    Args:
        traits: as for `toy_of`.
        seed: decides on the places, and how the toy stands.
    """
    toy, rng = toy_of(traits), np.random.default_rng(seed)
    scenes = rng.choice(SCENES, 5, replace=False)
    wobbles = rng.normal(0, 1, (5, 7)).clip(-2, 2)
    return [
        render(Drawing(toy, scene=str(scene), wobble=tuple(wobble)), EXAMPLE_SIDE)
        for scene, wobble in zip(scenes, wobbles, strict=True)
    ]


def draw_words(words: str, seed: int = 0) -> list[Image.Image]:
    """`draw_toy` of a toy in words, as for `read_toy`."""
    return draw_toy(asdict(read_toy(words)), seed)
