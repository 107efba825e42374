"""The recipe of the embedded default, a small Stable Diffusion that knows a world of drawn toys; its judge.

Read in this order: `world`, `drawing`, `captions`, `autoencoder`, `diffusion`, `judge`, `build`.
"""

from .drawing import write_examples
from .judge import Judge
from .scores import fullest_description, plot_shares, score_table, score_word, toy_in, worth_in_words
from .toys import TOY_TRAITS, draw_toy, draw_words, remark_on
