"""When a word is learned: the rule of Voronov et al. 2023, “Is This Loss Informative?”."""

from collections.abc import Sequence
from statistics import pvariance

WINDOW = 8
THRESHOLD = 0.15


def is_learned(losses: Sequence[float], window: int = WINDOW, threshold: float = THRESHOLD) -> bool:
    """Whether the fixed loss has come to rest (arXiv 2302.04841, section 4.2, “DVAR”).

    Args:
        losses: the fixed loss (always the same pictures, noise, timesteps and sentences) so far, in
            order.
        window: how many of the last ones are looked at.
        threshold: the share of the whole run's variance under which the window's must fall.

    Returns:
        True once there are two windows of losses and the last one has come to rest.
    """
    if len(losses) < 2 * window:
        return False
    return pvariance(losses[-window:]) < threshold * pvariance(losses)
