"""The trainer against the well-known ones, on the miniature and at Stable Diffusion 1.5's size.

`python -m tests.bench` measures what has not been measured yet, writes each figure to `bench.json` as
soon as it is there, and the table to the README.
"""
