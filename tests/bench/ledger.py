"""Measurements, each written to disk when it is finished, so that a bench that was killed goes on."""

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from helpers.common.files import write_whole
from helpers.common.places import miniature_hash
from helpers.concept.concept import TrainingSettings

from .figures import figures

PATH = Path(__file__).with_name("bench.json")

Measurement = dict[str, Any]


class Ledger:
    """What has been measured, by name, in a JSON file together with the figures that follow from it.

    Measurements of another machine, or of other weights, are not mixed with new ones: they are
    dropped.
    """

    def __init__(self, path: Path, machine: dict[str, Any]):
        self.path, self.machine = path, machine
        self.measurements: dict[str, Measurement] = {}
        self.reasons: dict[str, str] = {}
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if content.get("machine") == machine:
            self.measurements, self.reasons = content["measurements"], content["reasons"]
        elif content:
            print("The machine or the miniature is another one than last time: everything is measured anew.")

    def once(self, name: str, measure: Callable[[], Measurement]) -> Measurement:
        """The measurement of that name; made and written now if it isn't there."""
        if name not in self.measurements:
            print(f"{name} ...", flush=True)
            self.measurements[name] = measure()
            self.write()
        return self.measurements[name]

    def say_why_not(self, part: str, reason: str | None) -> None:
        """Note why a part, or a figure, has no value; None: it has one."""
        if reason is None:
            self.reasons.pop(part, None)
        else:
            self.reasons[part] = reason
        self.write()

    def content(self) -> dict[str, Any]:
        return {
            **figures(self.measurements),
            "reasons": self.reasons,
            "machine": self.machine,
            "measurements": self.measurements,
        }

    def write(self) -> None:
        """Replace the file in one go."""
        write_whole(self.path, _one_line_each(self.content()))


def this_machine() -> dict[str, Any]:
    """All that makes two timings comparable."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        "miniature": miniature_hash(),
        "settings": TrainingSettings().model_dump(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _one_line_each(content: dict[str, Any]) -> str:
    """JSON with a line for each entry, and for each measurement."""
    measurements = [
        f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content["measurements"].items()
    ]
    lines = [
        f" {json.dumps(name)}: {json.dumps(value)}"
        for name, value in content.items()
        if name != "measurements"
    ]
    return "{\n" + ",\n".join([*lines, ' "measurements": {\n' + ",\n".join(measurements) + "\n }"]) + "\n}\n"
