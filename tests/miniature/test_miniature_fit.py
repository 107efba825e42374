"""A training run of the recipe that is killed goes on as it would have."""

from itertools import count

import pytest
import torch

from helpers.miniature.fit import Plan, fit, read_log

PLAN = Plan("tiny", pictures=120, batch=2, lr=0.02)


def _run(folder, kill_at: int | None = None) -> torch.nn.Module:
    steps = count(torch.load(folder / "tiny.pt")["step"] if (folder / "tiny.pt").exists() else 0)

    def make_model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))

    def loss_of(model: torch.nn.Module, draw: torch.Generator) -> torch.Tensor:
        if next(steps) == kill_at:
            raise KeyboardInterrupt
        inputs = torch.randn(PLAN.batch, 4, generator=draw)
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return fit(PLAN, make_model, loss_of, folder)


def test_a_killed_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = _run(tmp_path / "whole")
    monkeypatch.setattr("helpers.miniature.fit._CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "killed", kill_at=31)
    resumed = _run(tmp_path / "killed")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_learns_and_logs(tmp_path):
    _run(tmp_path)
    lines = read_log(tmp_path, "tiny")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert [line["pictures"] for line in lines] == [50, 100, 120]


def test_a_killed_run_loses_a_tenth_at_most_and_logs_nothing_twice(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, kill_at=26)
    assert torch.load(tmp_path / "tiny.pt", weights_only=True)["step"] == 24
    assert read_log(tmp_path, "tiny") == []
    (tmp_path / "tiny.pt.partial").write_text("as a kill may leave it")
    _run(tmp_path)
    assert [line["pictures"] for line in read_log(tmp_path, "tiny")] == [98, 120]


def test_a_fraction_of_a_plan_keeps_its_rates_and_is_never_nothing():
    tenth = PLAN.at(0.1)
    assert (tenth.pictures, tenth.lr, tenth.batch) == (12, PLAN.lr, PLAN.batch)
    assert PLAN.at(1e-6).steps > 0


def test_the_rate_rises_holds_and_falls():
    shares = [PLAN.lr_factor(step) for step in range(PLAN.steps)]
    assert shares[0] < 1 == max(shares) and shares[-1] == 0.01
