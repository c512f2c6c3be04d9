"""Both ends of the scale: random play and the best that could be got."""

from __future__ import annotations

import pytest

import envs
from envs.reference_returns import best_return, random_return
from envs.stream import SceneStream

AGENT = "narratives/TravelingSalesman-v0"


def test_random_return():
    mean, error = random_return(AGENT, hold=5, scenes=512)
    other, _ = random_return(AGENT, hold=5, scenes=512, seed=1)
    assert abs(mean - other) < 5 * error and 0 < error < 0.1
    assert random_return(AGENT, hold=1, scenes=512)[0] < mean
    assert abs(random_return(AGENT, hold=5, scenes=512, gamma=0.5)[0]) < abs(mean)


@pytest.mark.parametrize("env_id", envs.ENV_IDS)
def test_nobody_beats_the_best(env_id):
    stream = SceneStream(env_id, 32, split="test")
    batch = stream.batch(0)
    best = stream.simulator.best_return(batch.start())
    assert best.shape == (32,)
    assert (batch.rewards.sum(1) <= best + 1e-5).all()
    mean, error = best_return(env_id, scenes=32)
    assert mean == pytest.approx(best.double().mean().item()) and error >= 0


def test_too_few_scenes():
    for estimate in (random_return, best_return):
        with pytest.raises(ValueError, match="scenes"):
            estimate(AGENT, scenes=1)
