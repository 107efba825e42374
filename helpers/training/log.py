"""What happened in a run, a line for each event: `log.jsonl`, and the same for TensorBoard."""

import json
from pathlib import Path
from typing import Any

from ..concept import Concept


class Log:
    """Appends to `log.jsonl` in a training folder and to `tensorboard/` beside it.

    A line is a dictionary with `step` and, as they come: `loss`, `learning_rate`, `norm` (the mean of
    `norms`, one a row), `seconds` (of the run so far) for a step; `fixed_loss`; `score`; `event` with a
    sentence.

    Args:
        folder: the training folder.
        step: lines after this step, left by a run that was killed, are dropped.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        _drop_after(self.path, step)
        self._lines = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, **values: Any) -> None:
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training folder's log; none where there is no log. A damaged line is left out."""
    path = folder / "log.jsonl"
    return parse_lines(path.read_bytes()) if path.is_file() else []


def parse_lines(content: bytes) -> list[dict[str, Any]]:
    """The whole lines of a log; without one half written, or damaged by a machine that went down."""
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    parsed = (_parse(line) for line in whole.split("\n"))
    return [line for line in parsed if isinstance(line, dict) and "step" in line]


def series(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one quantity, for a plot."""
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def row_norms(concept: Concept, lines: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and lengths of each row of a word, by the token it stands for; XL has each token twice."""
    steps, norms = series(lines, "norms")
    rows, tokens = list(zip(*norms, strict=True)), concept.placeholder_tokens
    encoders = ["", ", second encoder"][: len(rows) // len(tokens)]
    names = [token + encoder for encoder in encoders for token in tokens]
    return {name: (steps, list(values)) for name, values in zip(names, rows, strict=False)}


def _drop_after(path: Path, step: int) -> None:
    kept = [json.dumps(line) + "\n" for line in read_log(path.parent) if line["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    partial.replace(path)
