"""How a form says what a field is for, and what is wrong with it: legible in light and dark themes."""

import html

RED = "var(--jp-error-color1, #d32f2f)"


def hint(text: str) -> str:
    """A quiet line beside a field."""
    return f"<span style='opacity:.75'>{html.escape(text)}</span>"


def problem(sentence: str) -> str:
    """Why a value can't be used; a screen reader reads it out at once."""
    return f"<span role='alert' style='color:{RED}'>{html.escape(sentence)}</span>"
