"""A learned word as a file for each program that draws with Stable Diffusion.

Also where such a program is on this machine, and how to start it.
"""

from .files import PROGRAMS, export_for, word_in
from .formats import read_back
from .web_ui import NAMES, find_web_uis, put_embedding, start_command, start_web_ui, web_ui_at
