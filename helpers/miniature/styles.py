"""The styles of the world: what is done to a picture's pixels after it was drawn."""

import numpy as np
from PIL import Image, ImageFilter

_PIXEL_ART_SCALE = 3


def render_side(style: str, side: int) -> int:
    """At how many pixels a picture of `side` pixels is to be drawn before its style is applied."""
    return side // _PIXEL_ART_SCALE if style == "pixel art" else side


def apply_style(pixels: np.ndarray, style: str, side: int, seed: int = 0) -> np.ndarray:
    """Apply a style.

    Args:
        pixels: (H, W, 3) float32, 0 to 1, drawn at `render_side(style, side)`.
        style: one of `world.STYLES`, or the held-out one.
        side: side of the result in pixels.
        seed: decides where a watercolour is pale.

    Returns:
        (side, side, 3) uint8.
    """
    styled = _STYLES[style](pixels, seed)
    image = Image.fromarray((np.clip(styled, 0, 1) * 255 + 0.5).astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))


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
    """How fast the brightness changes, 0 to 1, in lines about two pixels wide."""
    gray = _gray(pixels)[..., 0]
    down = np.abs(np.diff(gray, axis=0, append=gray[-1:]))
    right = np.abs(np.diff(gray, axis=1, append=gray[:, -1:]))
    lines = Image.fromarray((np.clip((down + right) * 3, 0, 1) * 255).astype(np.uint8))
    soft = lines.filter(ImageFilter.GaussianBlur(0.9))
    return np.clip(np.asarray(soft, np.float32) / 255 * 1.5, 0, 1)[..., None]


def _saturated(pixels: np.ndarray) -> np.ndarray:
    """The colour at full brightness."""
    return pixels / np.maximum(pixels.max(-1, keepdims=True), 0.15)
