"""X/Y grids that answer a question each: which prompt, which guidance, which training step."""

from collections.abc import Sequence
from typing import Any

from .concept import Concept
from .training.result import saved_steps
from .xy_grid import Sheet, xy_grid


def prompt_sheet(
    pipeline: Any, prompt: str, seeds: Sequence[int], columns: int = 5, name: str = "prompt", **settings
) -> Sheet:
    """One prompt, a picture for each seed, row by row: 20 seeds make the source tutorial's grid of 5 x 4."""
    return xy_grid(pipeline, None, ("seed", seeds), None, name, prompt=prompt, columns=columns, **settings)


def before_and_after(
    pipeline: Any, concept: Concept, prompts: Sequence[str], seed: int = 0, **settings
) -> Sheet:
    """The initializer above, the word below, with the same seed and prompts (`{}` stands for the word)."""
    words = (concept.initializer_token, concept.placeholder_token)
    axes = ("prompt", prompts), ("word", words)
    return xy_grid(pipeline, concept, *axes, "before_and_after", seed=seed, **settings)


def prompts_by_seeds(
    pipeline: Any, prompts: Sequence[str], seeds: Sequence[int], name: str = "prompts_by_seeds", **settings
) -> Sheet:
    """A row for each prompt, a column for each seed."""
    return xy_grid(pipeline, None, ("seed", seeds), ("prompt", prompts), name, **settings)


def guidance_by_seeds(
    pipeline: Any, prompt: str, guidances: Sequence[float], seeds: Sequence[int], **settings
) -> Sheet:
    """A row for each guidance, a column for each seed."""
    axes = ("seed", seeds), ("guidance", guidances)
    return xy_grid(pipeline, None, *axes, "guidance_by_seeds", prompt=prompt, **settings)


def schedulers_by_seeds(
    pipeline: Any, prompt: str, schedulers: Sequence[str], seeds: Sequence[int], **settings
) -> Sheet:
    """A row for each scheduler, a column for each seed."""
    axes = ("seed", seeds), ("scheduler", schedulers)
    return xy_grid(pipeline, None, *axes, "schedulers_by_seeds", prompt=prompt, **settings)


def steps_by_prompts(
    pipeline: Any,
    concept: Concept,
    prompts: Sequence[str],
    steps_of_training: Sequence[int],
    seed: int = 0,
    **settings,
) -> Sheet:
    """A row for each training step and one for the result, a column for each prompt, all at one seed.

    From it a person picks a step for `embeddings.use_step`.
    """
    axes = ("prompt", prompts), ("training_step", (*steps_of_training, None))
    return xy_grid(pipeline, concept, *axes, "steps_by_prompts", seed=seed, **settings)


def a_few_steps(concept: Concept, most: int = 5) -> list[int]:
    """At most `most` of the kept training steps, spread evenly from the first to the last."""
    steps = saved_steps(concept)
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]
