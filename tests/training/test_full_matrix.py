"""The optimizer of a word's rows: AdamW's length, and a direction that weighs all directions."""

import pytest
import torch
from torch import nn

from helpers.concept.concept import TrainingSettings
from helpers.training import learner as full_matrix
from helpers.training.learner import make_optimizer


def test_the_direction_is_that_of_the_full_matrix():
    gradients = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    unit = (gradients / gradients.norm()).double()
    powers, directions = torch.linalg.eigh(unit.T @ unit + full_matrix.DAMPING / 7 * torch.eye(7))
    momentum = sum(0.9 ** (4 - step) * unit[step] for step in range(5))
    expected = directions @ ((directions.T @ momentum) / powers.sqrt())
    found = full_matrix.full_matrix_direction(gradients, 0.9)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)
    later = torch.cat([torch.zeros(3, 7), gradients])  # steps that were not yet taken count nothing
    assert torch.allclose(full_matrix.full_matrix_direction(later, 0.9), found, rtol=1e-4, atol=1e-5)


def test_a_step_is_as_long_as_adamws():
    """The first one along the gradient, whatever the size of its numbers."""
    rows, alone = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    settings = TrainingSettings(learning_rate=0.1, weight_decay=0.5)
    ours = make_optimizer([rows], settings, processes=1)
    plain = torch.optim.AdamW([alone], lr=0.1, weight_decay=0.5)
    gradient = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]])
    rows.grad, alone.grad = gradient.clone(), gradient.clone()
    ours.step(), plain.step()
    moved, expected = rows.detach() - 0.95, alone.detach() - 0.95
    assert moved.norm() == pytest.approx(expected.norm().item(), rel=1e-4)
    assert torch.cosine_similarity(moved.flatten(), -gradient.flatten(), dim=0) == pytest.approx(1, abs=1e-5)


def test_quiet_directions_are_learned_beside_a_loud_one():
    """The loud one lies across all numbers: AdamW, which weighs each by itself, can't tell them apart."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.linspace(-1, 1, 128)
    left = []
    for optimizer_of in (
        lambda rows: make_optimizer([rows], TrainingSettings(learning_rate=0.03), 1),
        _adamw,
    ):
        rows = nn.Parameter(torch.zeros(1, 128))
        optimizer = optimizer_of(rows)
        for _ in range(100):
            loud = 30 * torch.randn(1, generator=generator)
            rows.grad = rows.detach() - wanted + loud
            optimizer.step()
        quiet = (rows.detach() - wanted) - (rows.detach() - wanted).mean()
        left.append(quiet.norm().item())
    assert left[0] < left[1] / 2


def _adamw(rows):
    return torch.optim.AdamW([rows], lr=0.03, weight_decay=0)


def test_a_gradient_that_is_no_number_is_left_to_adamw():
    rows = nn.Parameter(torch.ones(1, 4))
    optimizer = make_optimizer([rows], TrainingSettings(learning_rate=0.1), processes=1)
    rows.grad = torch.tensor([[1.0, float("nan"), 0.0, 0.0]])
    optimizer.step()
    assert not rows.isfinite().all()
