"""A few of the kills and concepts of `make trust`, in a process of their own: they fork, and train."""

import json
import subprocess
import sys

from helpers.common.places import repository_folder


def of(part, count):
    code = f"import json; from tests.trust.{part} import {part}; print(json.dumps({part}({count})))"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=repository_folder(), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_a_run_that_was_killed_ends_as_one_that_was_not():
    found = of("kills", 4)
    assert found["kills"] == 4 and found["in a write"] and found["runs"]


def test_concepts_that_come_and_go_leave_nothing_open():
    found = of("soak", 6)
    assert found["concepts"] == 6
    assert not found["files"] and not found["processes"]
