"""Teach a word to a frozen Stable Diffusion: `train(concept)`.

The step is in `step`, the run around it in `train`, what is looked at between steps in `watch`.
"""

from .by_hand import (
    by_hand,
    frozen_weights,
    gradients,
    show_latents,
    show_noisy,
    show_predictions,
)
from .control import request_stop, resume
from .describe import describe_pictures
from .evaluate import rank_initializers, try_initializers
from .figures import plot_run, sample_sheet
from .forecast import estimate, training_plan
from .optimizer import make_schedule
from .records import RunSummary
from .step import squared_errors, target_of, training_step
from .train import train, train_many
