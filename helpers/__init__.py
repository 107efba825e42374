"""Teach Stable Diffusion a new word: the machinery under the notebooks.

Importing this package loads nothing heavy; each module below imports what it needs.
"""

import io
import os
import sys

# OpenMP's threads spin while they wait for each other, and read once, when torch is loaded, for how long.
# Beside another busy program a step then takes more than ten times as long: tests/bench/busy.py measures it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# A console in an old code page has no “ or →: a sign in their place is better than a traceback.
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
