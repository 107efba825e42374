"""The recipe of the embedded default, a small Stable Diffusion for a world of drawn toys; and its judge.

Read in this order: `world`, `drawing`, `judge`, `fit`, `networks`, `build`, `report`.
"""

from .drawing import draw_toy, draw_words, write_examples
from .judge import (
    Judge,
    fullest_description,
    plot_shares,
    score_table,
    score_word,
    toy_in,
    worth_in_words,
)
from .world import TOY_TRAITS, remark_on
