"""`make bench`: all parts, or `python -m tests.bench --only steps`."""

import argparse
import os

from helpers.common.errors import UserError
from helpers.common.places import ROOT_VARIABLE
from helpers.model.machine import quiet_loading

from .busy import measure_busy
from .geometry import measure_sd15
from .ledger import PATH, Ledger, this_machine
from .many import measure_many
from .memory import measure_memory
from .setting import FOLDER
from .steps import measure_compiled, measure_steps
from .table import section, write_table

PARTS = {
    "steps": measure_steps,
    "memory": measure_memory,
    "sd15": measure_sd15,
    "compiled": measure_compiled,
    "many": measure_many,
    "busy": measure_busy,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="tests.bench", description="A step of the trainer beside those of the well-known ones."
    )
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    only = parser.parse_args(arguments).only
    os.environ[ROOT_VARIABLE] = str(FOLDER / "concepts")
    ledger = Ledger(PATH, this_machine())
    for name in [only] if only else PARTS:
        _measure(name, ledger)
    print(write_table("bench", section(ledger.content())))


def _measure(name: str, ledger: Ledger) -> None:
    """One part; what keeps it from being measured is noted, and the others go on."""
    try:
        with quiet_loading():
            PARTS[name](ledger)
        ledger.say_why_not(name, None)
    except UserError as error:
        print(error)
        ledger.say_why_not(name, str(error))


if __name__ == "__main__":
    main()
