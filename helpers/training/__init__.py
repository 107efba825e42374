"""Teach a word to a frozen Stable Diffusion: `train(concept)`.

The step is in `step`, the run around it in `train`, and what happens between steps in `watch`.
"""

from .describe import describe_pictures
from .dreambooth import (
    DreamboothSettings,
    dreambooth_concept,
    dreambooth_folder,
    subject,
    train_dreambooth,
)
from .evaluate import print_proposals, rank_initializers, try_initializers
from .figures import (
    by_hand,
    frozen_weights,
    gradients,
    plot_run,
    sample_animation,
    sample_sheet,
    show_latents,
    show_noisy,
    show_predictions,
)
from .forecast import estimate, training_plan
from .learner import make_schedule
from .processes import in_own_process
from .records import RunSummary, request_stop, resume
from .step import squared_errors, target_of, training_step
from .train import train, train_many
