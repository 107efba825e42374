"""The README's tables, each between its two marks."""

import re
from pathlib import Path
from typing import Any

from helpers.common.places import repository_folder

from .busy import AT_MOST

_HEAD = """\
## What a step takes

`make bench` takes steps on the same five pictures with the source tutorial's loop, with that of diffusers'
`textual_inversion.py`, and with ours, each with one vector: on the miniature, or on random weights of Stable
Diffusion 1.5's size. Measured on {processor}, with torch {torch} and {threads} of its
threads. All figures are in [bench.json](tests/bench/bench.json).

| | source | diffusers | ours | source / ours |
| --- | --- | --- | --- | --- |
"""


def write_table(name: str, text: str, readme: Path | None = None) -> str:
    """Put a section between `<!-- name -->` and `<!-- /name -->`; return it.

    Args:
        readme: the repository's own if None. One without the marks is left as it is.
    """
    readme, place = (
        readme or repository_folder() / "README.md",
        rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)",
    )
    old = readme.read_text(encoding="utf-8")
    readme.write_text(re.sub(place, lambda _: text, old, flags=re.DOTALL), encoding="utf-8")
    return text


def section(content: dict[str, Any]) -> str:
    """The section `bench` as Markdown: a row for each comparison that has been measured.

    Args:
        content: what the ledger holds.
    """
    rows = [*_step_rows(content), *_large_rows(content), *_many_rows(content)]
    rows += _busy_rows(content)
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    reasons = [f"\n{reason}\n" for reason in content["reasons"].values()]
    return _HEAD.format(**content["machine"]) + "".join([*lines, *reasons])


def _step_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    found, rows = content["measurements"], []
    if "steps" in found:
        seconds, batch = found["steps"]["seconds"], found["steps"]["batch"]
        theirs = [_milliseconds(seconds[kind]) for kind in ("source", "diffusers")]
        one, sample = seconds["ours_batch1"], seconds["ours"] / batch
        ratio, sample_ratio = content["step_time_ratio_batch1"], content["sample_time_ratio"]
        rows.append(("a step at batch 1", *theirs, _milliseconds(one), _times(ratio)))
        rows.append(
            (f"a sample, ours at batch {batch}", *theirs, _milliseconds(sample), _times(sample_ratio))
        )
    if "steps/compiled" in found:
        compiled = found["steps/compiled"]
        name = f"a step at batch 1, ours compiled ({compiled['warm_up']:.0f} s of warm-up)"
        theirs, ours = (_milliseconds(compiled["seconds"][kind]) for kind in ("source", "ours_compiled"))
        rows.append((name, theirs, "", ours, _times(content["step_time_ratio_batch1_compiled"])))
    return rows


def _large_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    found, rows = content["measurements"], []
    if "sd15/steps" in found:
        seconds = found["sd15/steps"]["seconds"]
        for name, ours, key in (
            ("float32", "ours", "sd15_step_ratio_equal_precision"),
            ("ours in bfloat16", "ours_bf16", "sd15_step_ratio_bf16"),
        ):
            if ours in seconds:
                theirs, mine = f"{seconds['source']:.2f} s", f"{seconds[ours]:.2f} s"
                row = (f"a step at Stable Diffusion 1.5's size, 256 px, {name}", theirs, "", mine)
                rows.append((*row, _times(content[key])))
    for key, name in (("peak_bytes", "peak memory above the model"), ("extra_bytes", "kept for training")):
        memory = {kind: found.get(f"memory/sd15/{kind}") for kind in ("source", "diffusers", "ours")}
        if all(memory.values()):
            values = [one[key] for one in memory.values()]
            rows.append((f"{name}, that size", *map(_megabytes, values), _times(values[0] / values[-1])))
    return rows


def _many_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    measured = content["measurements"].get("many")
    if measured is None:
        return []
    one, many = measured["seconds"].values()
    name = f"a word of {measured['steps']} steps, alone and of {measured['words']} in one run"
    return [(name, "", "", f"{one:.1f} s, {many:.1f} s", "")]


def _busy_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    measured = content["measurements"].get("busy")
    if measured is None:
        return []
    rows = []
    for load, name in (
        ("idle", f"{measured['steps']} steps, loading included, on an idle machine"),
        ("busy", "the same with a busy loop on each core"),
    ):
        ours, torchs = measured["seconds"][load], measured["seconds"][f"{load}_torch"]
        bound = "over " if torchs >= AT_MOST else ""
        rows.append((name, "", "", f"{ours:.1f} s (torch's own threads: {bound}{torchs:.1f} s)", ""))
    return rows


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"
