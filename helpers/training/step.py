"""One step of textual inversion, as the paper has it (Gal et al. 2022, arXiv 2208.01618, equation 2)."""

import torch
import torch.nn.functional as F


def training_step(model, draws) -> torch.Tensor:
    """How badly the model predicts the noise in our pictures when it is told the new word.

    Args:
        model: the frozen base model (`Model`), with the new rows in its embedding look-up.
        draws: where everything random comes from (`Draws`).

    Returns:
        The squared error of each sample, (batch,), float32. Its only gradient is that of the rows.
    """
    latents = draws.latents()  # z: a picture, through the autoencoder
    noise = draws.noise()  # epsilon, from N(0, 1)
    timesteps = draws.timesteps()  # t: how much of the noise
    sentences = draws.sentences()  # y: "a photo of a <word>", as token ids

    noisy = model.scheduler.add_noise(latents, noise, timesteps)  # z at time t
    conditioning = model.embed(sentences)  # c(y), with the new rows looked up
    prediction = model.predict(noisy, timesteps, conditioning)
    errors = squared_errors(prediction, target_of(model.scheduler, latents, noise, timesteps))
    return draws.weights(timesteps) * errors


def target_of(scheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """What the model was made to predict: the noise, the velocity (Salimans and Ho 2022) or the picture."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    return scheduler.get_velocity(latents, noise, timesteps) if kind == "v_prediction" else latents


def squared_errors(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared error of each sample: two (batch, channels, height, width) to (batch,)."""
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))


# How much each timestep counts in the loss.


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
