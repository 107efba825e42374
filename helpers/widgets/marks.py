"""How a form says what a field is for, and what is wrong with it: legible in light and dark themes."""

import html

RED = "var(--jp-error-color1, #d32f2f)"


def hint(text: str) -> str:
    """A quiet line beside a field."""
    return f"<div style='opacity:.75;line-height:1.3'>{html.escape(text)}</div>"


def problem(sentence: str) -> str:
    """Why a value can't be used; a screen reader reads it out at once."""
    return f"<div role='alert' style='color:{RED};line-height:1.3'>{html.escape(sentence)}</div>"
