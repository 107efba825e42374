"""Curves as SVG: lighter than a plotting library while training has the processor."""

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 300, 110
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 58, 22, 34
_MOST = 240  # points: more can't be told apart
_NAMED = 6  # lines that are told apart by colour and named
# Of a middle tone: legible on a light page and on a dark one.
_COLOURS = ("#2f7ed8", "#d9730d", "#1a9e6e", "#c264a8", "#b8860b", "#3aa0c8")
_STYLE = "color:var(--jp-ui-font-color1, currentColor);font:11px sans-serif;max-width:100%;overflow:visible"
Series = tuple[Sequence[int], Sequence[float]]
_Points = list[tuple[int, float]]


def curve(title: str, steps: Sequence[int], values: Sequence[float]) -> str:
    """One quantity over the steps; see `curves`."""
    return curves(title, {"": (steps, values)})


def curves(title: str, lines: dict[str, Series]) -> str:
    """Quantities over the steps, on a clear ground, in the colours of the page; empty where there are none.

    It has axes with their ends written on them, the last value of a line beside its point, the lines'
    names below, and says all of that in words to a screen reader.

    Args:
        lines: steps and values, by the name of the line.
    """
    found = {name: points for name, one in lines.items() if (points := _finite(*one))}
    if not found:
        return ""
    summary = " ".join(_in_words(f"{title} {name}".strip(), points) for name, points in found.items())
    names = [name for name in found if name][:_NAMED]
    width, height = _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM + 14 * len(names)
    return (
        f'<svg role="img" aria-label="{html.escape(summary)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="{_STYLE}">'
        f"<title>{html.escape(summary)}</title>{_drawn(title, list(found.values()))}{_legend(names)}</svg>"
    )


def _finite(steps: Sequence[int], values: Sequence[float]) -> _Points:
    return [point for point in zip(steps, values, strict=True) if math.isfinite(point[1])]


def _in_words(title: str, points: _Points) -> str:
    (first, at_first), (last, at_last) = points[0], points[-1]
    values = [value for _, value in points]
    return (
        f"{title} over the steps: {at_first:.4f} at step {first}, {at_last:.4f} at step {last}; "
        f"lowest {min(values):.4f}, highest {max(values):.4f}."
    )


def _drawn(title: str, lines: list[_Points]) -> str:
    thin = [[*points[: -1 : -(-len(points) // _MOST)], points[-1]] for points in lines]
    low, high = _range(thin)
    last = max(points[-1][0] for points in thin)
    ends = _apart([_TOP + _HEIGHT * (1 - (points[-1][1] - low) / ((high - low) or 1)) for points in thin])
    drawn = [
        _line(
            _place(points, low, high, last), colour, points[-1][1] if number < _NAMED else None, ends[number]
        )
        for number, points in enumerate(thin)
        for colour in [_COLOURS[number % len(_COLOURS)]]
    ]
    return _axes(title, low, high, last) + "".join(drawn)


def _axes(title: str, low: float, high: float, last: int) -> str:
    bottom, right = _TOP + _HEIGHT, _LEFT + _WIDTH
    return (
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor" opacity="0.5"/>'
        + _text(_LEFT, 12, title, "start")
        + _text(_LEFT - 5, _TOP + 8, f"{high:.4g}", "end")
        + _text(_LEFT - 5, bottom, f"{low:.4g}" if low < high else "", "end")
        + _text(_LEFT, bottom + 14, "0", "middle")
        + _text(right, bottom + 14, str(last), "middle")
        + _text(_LEFT + _WIDTH / 2, bottom + 28, "step", "middle")
    )


def _line(placed: list[tuple[float, float]], colour: str, last: float | None, text_y: float) -> str:
    """A line, a point at its end and the last value beside it, unless that is None."""
    x, y = placed[-1]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    return (
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
        + ("" if last is None else _text(x + 7, text_y + 4, f"{last:.4f}", "start"))
    )


def _apart(places: list[float], least: float = 12) -> list[float]:
    """The places of texts from top to bottom, moved so that none lies on another."""
    moved, above = list(places), -math.inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        moved[index] = above = max(places[index], above + least)
    return moved


def _legend(names: list[str]) -> str:
    top = _TOP + _HEIGHT + _BOTTOM
    return "".join(
        f'<rect x="{_LEFT}" y="{top + 14 * index + 1}" width="12" height="4" fill="{_COLOURS[index]}"/>'
        + _text(_LEFT + 18, top + 14 * index + 7, name, "start")
        for index, name in enumerate(names)
    )


def _place(points: _Points, low: float, high: float, last: int) -> list[tuple[float, float]]:
    span = (high - low) or 1
    return [
        (_LEFT + _WIDTH * step / (last or 1), _TOP + _HEIGHT * (1 - (value - low) / span))
        for step, value in points
    ]


def _range(lines: list[_Points]) -> tuple[float, float]:
    values = [value for points in lines for _, value in points]
    return min(values), max(values)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{html.escape(text)}</text>'
    )
