"""A reward that few states pay is learned."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from worldmodel import ActionSpec, Context, Episode, Episodes, Queries, fit, make, preset

RADIUS = 0.208
"""Of the goal in the middle of [-1, 1]^2: 3.4% of all states."""


def reach(episodes: int, seed: int = 0) -> Episodes:
    """A point that is pushed around; within the goal a step pays 0, elsewhere -1."""
    random, recorded = np.random.default_rng(seed), []
    for _ in range(episodes):
        pushes = random.uniform(-1, 1, (20, 2)).astype(np.float32)
        places = [random.uniform(-1, 1, 2)]
        for push in pushes:
            places.append((places[-1] + 0.15 * push).clip(-1, 1))
        observations = np.stack(places).astype(np.float32)
        rewards = np.where(np.hypot(*observations[1:].T) < RADIUS, 0.0, -1.0).astype(np.float32)
        recorded.append(Episode(observations, pushes, rewards, False))
    return Episodes(recorded, ActionSpec("box", (2,), low=(-1.0, -1.0), high=(1.0, 1.0)))


@pytest.mark.slow
def test_a_sparse_reward_is_learned() -> None:
    episodes = reach(500)
    share = np.mean([(each.rewards == 0).mean() for each in episodes])
    assert 0.02 < share < 0.06 and math.pi * RADIUS**2 / 4 == pytest.approx(0.034, abs=1e-3)
    small = {"mlp": 64, "path": 32, "tower": 16, "scene": 64, "head": 64, "targets": 6}
    model = make("jump", episodes.spec(5), replace(preset("jump", "vector"), **small), 0)
    fit(model, episodes.windows(5, 64), 800, progress=False)
    axis = torch.linspace(-1, 1, 41)
    observations = torch.cartesian_prod(axis, axis)[:, None]
    now = torch.zeros(len(observations), 1, dtype=torch.int64)
    with torch.no_grad():
        belief = model.observe(Context(observations, now))
        worlds = model.sample(belief, 4, torch.Generator().manual_seed(0))
        still = torch.zeros(len(observations), 1, 1, 2)
        rewards = model.predict(worlds, Queries(now + 1, still), frames=False).rewards
    mean = rewards[:, :, 0, 0].mean(1)
    inside = observations[:, 0].norm(dim=1) < RADIUS / 2
    assert mean.max() > -0.3
    assert mean.argmax() in inside.nonzero()
