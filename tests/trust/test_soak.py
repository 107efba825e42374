"""A few of the concepts of `make trust`, in a process of their own: others' files would be counted."""

import json
import subprocess
import sys

from helpers.common.places import repository_folder


def test_concepts_that_come_and_go_leave_nothing_open():
    code = "import json; from tests.trust.soak import soak; print(json.dumps(soak(3)))"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=repository_folder(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["concepts"], found["files"], found["processes"]) == (3, 0, 0)
