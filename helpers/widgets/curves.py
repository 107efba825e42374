"""A curve as SVG: lighter than a plotting library while training has the processor."""

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 300, 110
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 58, 22, 34
_MOST = 240  # points: more can't be told apart
_COLOUR = "var(--jp-brand-color1, #2f7ed8)"
_STYLE = "color:var(--jp-ui-font-color1, currentColor);font:11px sans-serif;max-width:100%;overflow:visible"


def curve(title: str, steps: Sequence[int], values: Sequence[float]) -> str:
    """A quantity over the steps, on a clear ground, in the colours of the page; empty where there is nothing.

    It has axes with their ends written on them, the last value beside its point, and says all of that
    in words to a screen reader.
    """
    points = [point for point in zip(steps, values, strict=True) if math.isfinite(point[1])]
    if not points:
        return ""
    summary, shown = _in_words(title, points), _thinned(points)
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    return (
        f'<svg role="img" aria-label="{html.escape(summary)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="{_STYLE}">'
        f"<title>{html.escape(summary)}</title>{_axes(title, shown)}{_line(shown)}</svg>"
    )


def _in_words(title: str, points: list[tuple[int, float]]) -> str:
    (first, at_first), (last, at_last) = points[0], points[-1]
    values = [value for _, value in points]
    return (
        f"{title} over the steps: {at_first:.4f} at step {first}, {at_last:.4f} at step {last}; "
        f"lowest {min(values):.4f}, highest {max(values):.4f}."
    )


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [*points[: -1 : -(-len(points) // _MOST)], points[-1]]


def _axes(title: str, points: list[tuple[int, float]]) -> str:
    low, high = _range(points)
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    return (
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor" opacity="0.5"/>'
        + _text(_LEFT, 12, title, "start")
        + _text(_LEFT - 5, _TOP + 8, f"{high:.4g}", "end")
        + _text(_LEFT - 5, bottom, f"{low:.4g}" if low < high else "", "end")
        + _text(_LEFT, bottom + 14, "0", "middle")
        + _text(right, bottom + 14, str(points[-1][0]), "middle")
        + _text(_LEFT + _WIDTH / 2, bottom + 28, "step", "middle")
    )


def _line(points: list[tuple[int, float]]) -> str:
    placed = _place(points)
    x, y = placed[-1]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return (
        f'<polyline points="{drawn}" fill="none" stroke="{_COLOUR}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_COLOUR}"/>'
        + _text(x + 7, y + 4, f"{points[-1][1]:.4f}", "start")
    )


def _place(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    low, high = _range(points)
    last, span = points[-1][0] or 1, (high - low) or 1
    return [
        (_LEFT + _WIDTH * step / last, _TOP + _HEIGHT * (1 - (value - low) / span)) for step, value in points
    ]


def _range(points: list[tuple[int, float]]) -> tuple[float, float]:
    values = [value for _, value in points]
    return min(values), max(values)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{html.escape(text)}</text>'
    )
