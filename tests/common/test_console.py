"""Sentences in a console of any code page."""

import os
import subprocess
import sys

import pytest

from helpers.common import places


@pytest.mark.parametrize("page", ["cp1252", "cp437", "ascii", "cp932", "cp437:strict"])
def test_a_console_in_any_code_page_shows_the_sentence(page):
    code = (
        "import helpers.common, sys; [print('“Émile” → as it is', file=f) for f in (sys.stdout, sys.stderr)]"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=places.repository_folder(),
        env={**os.environ, "PYTHONIOENCODING": page},
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    for shown in (ran.stdout, ran.stderr):
        assert b"mile" in shown and b"as it is" in shown and b"\\u" not in shown
