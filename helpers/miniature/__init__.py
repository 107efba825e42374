"""The recipe of the embedded default, a small Stable Diffusion that knows a world of drawn toys; its judge.

Read in this order: `world`, `drawing`, `fit`, `networks`, `judge`, `build`.
"""

from .drawing import draw_toy, draw_words, write_examples
from .judge import Judge
from .scores import fullest_description, plot_shares, score_table, score_word, toy_in, worth_in_words
from .world import TOY_TRAITS, remark_on
