"""`make trust`: bad inputs, wrong states, kills and a soak; or `python -m tests.trust kills --count 50`.

Each figure is written into `trust.json` and the README's table when it is there.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from helpers.common.files import write_json
from helpers.common.places import repository_folder

from .kills import kills
from .soak import soak
from .states import states

_BAD_INPUTS = (
    "tests/dataset/test_download.py tests/dataset/test_images.py tests/model/test_single_file.py "
    "tests/model/test_base_model.py tests/concept/test_cloud.py tests/concept/test_concepts.py "
    "tests/inference/test_prompt_weights.py tests/training/test_settings_properties.py tests/trust"
).split()
_RESULT = re.compile(r"(\d+) (passed|failed|error)")
_RECORD = Path(__file__).with_name("trust.json")
_PLACE = re.compile(r"(?<=<!-- trust -->\n).*?(?=<!-- /trust -->)", re.DOTALL)
_SAID = {
    "inputs": (
        "bad inputs",
        "{tests} tests with odd pictures, addresses, words, settings, zips, models and files, some of them "
        "pickles that would run code: {failed} failed",
    ),
    "states": (
        "notebooks in wrong states",
        "{runs} runs of a notebook without pictures, settings, word or model, or with damaged ones: "
        "{stopped} stopped with a sentence that says what to do, the others ran, none showed a traceback",
    ),
    "kills": (
        "kills",
        "{kills} by SIGKILL, {in a write} of them during a write: the concept opened every time, and {runs} "
        "runs ended bit for bit as they would have without the kill",
    ),
    "soak": (
        "concepts in one process",
        "{concepts} made, taught, exported and deleted: memory grew by {slope} kB a concept, to {megabytes} "
        "MB; {files} more open files, {processes} more processes",
    ),
}


def inputs(_count: int = 0) -> dict[str, int]:
    """The tests whose subject is what a person may get wrong: how many there are, and how many failed."""
    command = [sys.executable, "-m", "pytest", "-q", *_BAD_INPUTS]
    ran = subprocess.run(command, cwd=repository_folder(), capture_output=True, text=True)
    found = {what: int(number) for number, what in _RESULT.findall(ran.stdout.splitlines()[-1])}
    failed = found.get("failed", 0) + found.get("error", 0)
    return {"tests": found.get("passed", 0) + failed, "failed": failed}


_PARTS: dict[str, Callable[[int], dict]] = {
    "inputs": inputs,
    "states": lambda _: states(),
    "kills": kills,
    "soak": soak,
}
_USUAL = {"kills": 50, "soak": 200}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.trust", description="What may go wrong, many times.")
    parser.add_argument("part", nargs="?", choices=_PARTS, help="all of them unless given")
    parser.add_argument("--count", type=int, help="how many kills, or concepts")
    given = parser.parse_args()
    for part in [given.part] if given.part else _PARTS:
        figures = _PARTS[part](given.count or _USUAL.get(part, 0))
        record = json.loads(_RECORD.read_text()) if _RECORD.is_file() else {}
        write_json(_RECORD, {**record, part: figures})
        print(part, figures)
        _write_table(record | {part: figures})


def _write_table(record: dict[str, dict]) -> None:
    rows = [
        f"| {what} | {sentence.format(**record[part])} | `python -m tests.trust {part}` |\n"
        for part, (what, sentence) in _SAID.items()
        if part in record
    ]
    readme = repository_folder() / "README.md"
    text = "| tried | what came of it | command |\n| --- | --- | --- |\n" + "".join(rows)
    readme.write_text(_PLACE.sub(lambda _: text, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
