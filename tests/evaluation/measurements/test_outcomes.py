"""Outcomes that are hard to imagine: what is measured, at a size that says nothing of models."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from evaluation.measurements import outcomes
from evaluation.measurements.outcomes import LANDER, Balance, Bandit, EndsByChance, Outcomes
from worldmodel import collect

TINY = {"seeds": 1, "steps": 2, "episodes": 12}


def test_the_environments_pay_and_end_as_they_say() -> None:
    bandit = collect(Bandit, 300, seed=0, progress=False)
    actions = np.concatenate([episode.actions for episode in bandit])
    rewards = np.concatenate([episode.rewards for episode in bandit])
    assert (rewards[actions == 0] == 1).all() and set(rewards[actions == 1]) == {0, 20}
    assert rewards[actions == 1].mean() == pytest.approx(2, abs=0.5)
    ends = collect(EndsByChance, 300, seed=0, progress=False)
    assert all(e.terminated and (e.rewards == 1).all() for e in ends)
    assert ends.lengths.mean() == pytest.approx(10, abs=2)
    small, large = (collect(lambda f=f: Balance(f), 2, progress=False)[0] for f in (1.0, 1e4))
    np.testing.assert_allclose(large.rewards, 1e4 * small.rewards, rtol=1e-5)


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "SCALES", (1.0, 1e6))
    monkeypatch.setattr(outcomes, "TESTED", 40)

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(
        gym, "make", lambda id, make=gym.make: missing() if id == LANDER else make(id)
    )
    rows = Outcomes(**TINY).measure()
    assert [row["case"] for row in rows] == [
        *["bandit"] * 3, "ends by chance", "CartPole x 1", "CartPole x 1e+06", LANDER,
    ]  # fmt: skip
    assert rows[-1]["quantity"] == "not measured: Box2D is not installed"
    assert all(np.isfinite(row["imagined"]) for row in rows[:-1])
    assert rows[4]["imagined"] == pytest.approx(rows[5]["imagined"], abs=1e-3)


@pytest.mark.slow
def test_imagined_outcomes_are_expectations() -> None:
    """With symlog the bandit's actions were worth 1.00 and .27; episodes took 5.1 steps of 6.6."""
    measured = Outcomes()
    still, better, share = measured.bandit(0)
    assert still["imagined"] == pytest.approx(1, abs=0.1)
    assert better["imagined"] == pytest.approx(better["real"], abs=0.3)
    assert share["imagined"] > 0.95
    (steps,) = measured.ends(0)
    assert steps["imagined"] == pytest.approx(steps["real"], abs=0.35)
