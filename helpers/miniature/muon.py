"""The optimizer of the recipe: Muon for matrices and convolutions, AdamW for all else."""

import torch

from .machine import has_quick_bf16


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch's own
    `torch.optim.Muon` takes matrices only; here a convolution (out, in, h, w) counts as the matrix
    (out, in * h * w), and matrices of one shape are treated together.

    Args:
        params: parameters of two dimensions or more.
        lr: step; an update has a root mean square of about 0.2 * lr, as AdamW's has.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.02):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for same in _by_shape(group["params"]).values():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in same])
                scale = 0.2 * max(updates.shape[1:]) ** 0.5
                for p, update in zip(same, orthogonalized(updates), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * scale)

    def _momentum(self, p: torch.Tensor, momentum: float) -> torch.Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum).reshape(p.shape[0], -1)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with all singular values about 1, (N, rows, columns)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16 if has_quick_bf16(x.device) else torch.float32)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def _by_shape(params) -> dict[torch.Size, list[torch.Tensor]]:
    groups: dict[torch.Size, list[torch.Tensor]] = {}
    for p in params:
        if p.grad is not None:
            groups.setdefault(p.shape, []).append(p)
    return groups


def make_optimizers(modules: list[torch.nn.Module], lr: float) -> list[torch.optim.Optimizer]:
    """Muon at `lr` for inner matrices; AdamW at half of it for embeddings, vectors, first and last layers."""
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    inner, outer = [], []
    for name, p in named:
        edge = any(part in name for part in ("conv_in", "conv_out", "embedding", "quant_conv"))
        (outer if p.ndim < 2 or edge else inner).append(p)
    return [Muon(inner, lr), torch.optim.AdamW(outer, lr / 2, betas=(0.9, 0.98), weight_decay=0.01)]


def set_lr(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set every learning rate to a share of the one it was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("full_lr", group["lr"])
            group["lr"] = group["full_lr"] * share
