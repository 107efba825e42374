"""Pictures of a learned word: a pipeline with the word in it, and prompts with weights.

Grids over two settings, and PNG files that remember what they were made with.
"""

from .examples import examples_for, known_words, own_prompt
from .grid import Axis, GridPlan, a_few_steps, redraw, reopen, xy_grid
from .pipeline import add_word, generate, pipeline_with_word, remake, switch_step
from .png import read_settings, save_picture
