"""What a run will do, in numbers, before it does anything. Loads no model."""

from ..captions import captions_of
from ..concept import Concept
from ..images import image_paths
from .sentences import held_out_templates, training_templates


def preflight(concept: Concept) -> str:
    """Pictures, steps, batch and how often each picture will be seen, as lines to print.

    Raises:
        UserError: the concept has no pictures.
    """
    settings, pictures = concept.training, len(image_paths(concept))
    batch = settings.train_batch_size * settings.gradient_accumulation_steps * settings.num_processes
    samples = batch * settings.max_train_steps
    looks = settings.max_train_steps // settings.evaluate_every
    captioned = len(captions_of(concept))
    end = "or fewer, when the fixed loss rests" if settings.stop_when_learned else "exactly"
    return "\n".join(
        [
            f"{pictures} pictures, {len(training_templates(concept))} sentences to train with, "
            f"{len(held_out_templates(concept))} kept back to judge by",
            *([f"{captioned} of the pictures with captions of their own instead"] if captioned else []),
            f"{settings.max_train_steps} steps ({end}) x {batch} pictures a step = {samples} pictures",
            f"each picture {samples / pictures:.0f} times, each time with other noise",
            f"{looks} looks at the fixed loss, {settings.max_train_steps // settings.checkpoint_every} "
            "checkpoints to choose the best from",
        ]
    )
