"""How much each timestep counts in the loss."""

import torch


def all_the_same(timesteps: torch.Tensor) -> torch.Tensor:
    """The paper's loss: every timestep counts 1."""
    return torch.ones(len(timesteps), device=timesteps.device)


def min_snr(scheduler, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights: easy timesteps, where little noise is in the picture, count less.

    Hang et al. 2023 (arXiv 2303.09556), as diffusers' training scripts have it: min(SNR, gamma) over
    SNR for a model that predicts noise, over SNR + 1 for one that predicts velocity.

    Args:
        timesteps: (batch,), integers.
        gamma: the cap; the paper's is 5.

    Returns:
        (batch,) weights, float32.
    """
    kept = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = kept / (1 - kept).clamp_min(1e-12)
    capped = snr.clamp(max=gamma)
    if scheduler.config.prediction_type == "v_prediction":
        return capped / (snr + 1)
    return capped / snr.clamp_min(1e-12) if scheduler.config.prediction_type == "epsilon" else capped
