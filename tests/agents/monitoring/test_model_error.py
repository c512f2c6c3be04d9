"""Calibration of models whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_fakes import FakeEnv, FakeModel

from agents import RandomAgent
from agents.monitoring.model_error import calibration_score, imagination_error


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 4)])
@pytest.mark.parametrize("worlds", [2, 9])
def test_draws_of_the_same_distribution_are_calibrated(shape: tuple[int, ...], worlds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(worlds + 1, 20_000, *shape).exponential_(generator=generator)
    share = calibration_score(drawn[0], drawn[1:]).mean()
    assert share == pytest.approx(worlds / (worlds + 1), abs=0.01)
    assert calibration_score(drawn[0], 0.2 * drawn[1:]).mean() < share - 0.1  # too sure
    assert calibration_score(drawn[0], drawn[1:] + 5).mean() < 0.2  # wrong
    assert (
        calibration_score(0.1 * drawn[0] + 0.9, 3 * drawn[1:]).mean() > share + 0.05
    )  # too unsure


def test_ties_are_shared() -> None:
    real = torch.tensor([1.0, 1.0, 1.0, 1.0])
    imagined = torch.tensor([[1.0, 1.0, 2.0, 1.00001], [1.0, 0.0, 2.0, 0.99999]])
    found = calibration_score(real, imagined)
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1, 0, 2 / 3], dtype=torch.float64))


def test_rejects() -> None:
    for imagined in (torch.zeros(3, 4), torch.zeros(1, 5)):
        with pytest.raises(ValueError, match=r"imagined: expected \(S, \*\(5,\)\) with S >= 2"):
            calibration_score(torch.zeros(5), imagined)


class Narrow(FakeModel):
    """Knows nothing, but is sure: all its worlds want the same action."""

    def _sample(self, belief, n, generator):
        one = super()._sample(belief, 1, generator)
        state = {name: value.expand(-1, n) for name, value in one.state.items()}
        return type(one)(one.present, state)


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        (FakeModel(seen=True), 0.8, 0.8),  # knows the wanted action: all tie
        (FakeModel(seen=False), 0.72, 0.88),  # draws it as the environment does
        (Narrow(seen=False), 0.1, 0.35),  # right in a quarter of the episodes, which then all tie
    ],
)
def test_episodes_of_models_that_are_calibrated_or_not(
    model: FakeModel, low: float, high: float
) -> None:
    env = FakeEnv(steps=8)
    agent = RandomAgent(env.action_space, seed=0)
    found = [imagination_error(model, env, agent, seed, worlds=4) for seed in range(150)]
    for name in ("frame_calibration", "reward_calibration"):
        share = np.mean([getattr(errors, name) for errors in found])
        if name == "reward_calibration" and isinstance(model, Narrow):
            continue  # sums of rewards agree by chance as well
        assert low - 1e-6 <= share <= high + 1e-6, name
