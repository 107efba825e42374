"""A learned word as a file for each program that draws with Stable Diffusion, and on a hub.

Also where such a program is on this machine, and how to start it.
"""

from .files import convert, download_links, export_for, import_word, pull_concept, push_concept
from .formats import PROGRAMS, WHAT_LOSES_IT, prompt_for, read_back, read_word, word_in
from .web_ui import NAMES, find_web_uis, put_embedding, web_ui_at
