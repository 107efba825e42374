"""The table in the README, between its two marks."""

import re
from pathlib import Path
from typing import Any

from helpers.common.places import repository_folder

from .busy import AT_MOST
from .plan import OWN_STEPS, SEEDS, WORD_COUNTS, together
from .readings import SHARE_OF_SCORE

_PLACE = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.DOTALL)

_HEAD = """\
## How it compares

`make bench` trains on the same five pictures with the source tutorial's loop, with that of diffusers'
`textual_inversion.py`, and with ours, each with one vector. Measured on {processor}, with torch {torch} and
{threads} of its threads. All figures are in [bench.json](tests/bench/bench.json).

| | source | diffusers | ours | source / ours |
| --- | --- | --- | --- | --- |
"""


def write_table(content: dict[str, Any], readme: Path | None = None) -> str:
    """Put the section between `<!-- bench -->` and `<!-- /bench -->`; return it.

    Args:
        content: what the ledger holds.
        readme: the repository's own if None. One without the marks is left as it is.
    """
    readme, text = readme or repository_folder() / "README.md", section(content)
    old = readme.read_text(encoding="utf-8")
    readme.write_text(_PLACE.sub(lambda _: text, old), encoding="utf-8")
    return text


def section(content: dict[str, Any]) -> str:
    """The section as Markdown: a row for each comparison that has been measured."""
    rows = [*_step_rows(content), *_gain_rows(content), *_score_rows(content), *_large_rows(content)]
    rows += _busy_rows(content)
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    reasons = [f"\n{reason}\n" for reason in content["reasons"].values()]
    notes = [*_score_note(content), *_start_note(content), *_many_note(content), *reasons]
    return _HEAD.format(**content["machine"]) + "".join([*lines, *notes])


def _score_note(content: dict[str, Any]) -> list[str]:
    """What the row of an equal score means."""
    if content["score_seconds"] is None:
        return []
    return [
        f"\nAn equal score is {SHARE_OF_SCORE:.0%} of the highest that the source's runs pass through "
        "(identity times prompt, medians of the seeds). It is timed where it is first reached, whether or "
        "not the run stays there: the rows above say where the runs end.\n"
    ]


def _start_note(content: dict[str, Any]) -> list[str]:
    """Where the first seconds of ours go, as a sentence."""
    parts, steps = content["before_step_1"], content["measurements"].get("steps")
    if parts is None or steps is None:
        return []
    listed = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())
    sizes = f"a step is {steps['batch']} samples and {steps['seconds']['ours'] * 1000:.0f} ms"
    return [
        f"\nOf the time of ours, {sum(parts.values()):.1f} s go by before the first step ({listed}); then "
        f"{sizes}.\n"
    ]


def _many_note(content: dict[str, Any]) -> list[str]:
    """What a word costs beside others, as a sentence."""
    seconds = content["seconds_per_concept"]
    if seconds is None:
        return []
    steps = content["measurements"][together(WORD_COUNTS[0])]["steps"]
    costs = ", ".join(f"{cost:.1f} s a word for {count}" for count, cost in seconds.items())
    note = f"\nSeveral words in one run of {steps} steps take, everything counted: {costs}."
    return [f"{note}{_as_well_as_alone(content)}\n"]


def _as_well_as_alone(content: dict[str, Any]) -> str:
    many = content["many"]
    if many is None:
        return ""
    within = ", ".join(f"{many[str(count)]['within_two']} of {count}" for count in WORD_COUNTS[1:])
    return (
        f" Their gain in the fixed loss is within two standard deviations of {len(SEEDS)} runs alone for "
        f"{within} words."
    )


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


def _gain_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    gain = content["gain_seconds"]
    if gain is None:
        return []
    best = content["best_lr"]
    rates = f"{best['source']:g} and {best['diffusers']:g}"
    ratios = content["gain_time_ratio_source"], content["gain_time_ratio_best_lr"]
    bound = "" if _most_reached(gain["source"]) else "over "
    names = "90% of the gain, their own settings", f"90% of the gain, their best learning rates ({rates})"
    own, at_best = [
        (
            name,
            *(_seconds(gain[f"{kind}{suffix}"]) for kind in ("source", "diffusers")),
            _seconds(gain["ours"]),
        )
        for name, suffix in zip(names, ("", "_best_lr"), strict=True)
    ]
    return [(*own, bound + _times(ratios[0])), (*at_best, _times(ratios[1]))]


def _score_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    scores, rows = content["scores"], []
    if scores is not None:
        for name, suffix in (
            (f"after {OWN_STEPS:,} steps", ""),
            ("the same at their best rates", "_best_lr"),
        ):
            theirs = [_score(scores[f"{kind}{suffix}"]) for kind in ("source", "diffusers")]
            rows.append((f"identity and prompt, {name}", *theirs, _score(scores["ours"]), ""))
    if content["score_seconds"] is not None:
        times = (content["score_seconds"][kind] for kind in ("source", "ours"))
        theirs, ours = ("never" if time is None else f"{time:.1f} s" for time in times)
        ratio = _times(content["score_time_ratio_best_lr"])
        rows.append(("an equal score, their best rate", theirs, "", ours, ratio))
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


def _most_reached(gain: dict[str, Any]) -> bool:
    return gain["reached"] > gain["runs"] // 2


def _seconds(gain: dict[str, Any]) -> str:
    bound = "" if _most_reached(gain) else "over "
    return f"{bound}{gain['seconds']:.1f} s"


def _score(score: dict[str, float]) -> str:
    return f"{score['identity']:.2f}, {score['prompt']:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"
