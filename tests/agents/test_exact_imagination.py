"""With the true simulator as the model, imagination is the environment, step for step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from agents.vec_env import ImaginedVecEnv
from agents.wrappers import ChunkAction, HoldAction
from worldmodel import WorldModel, make
from worldmodel.models.baselines import ReplayConfig
from worldmodel.spec import Spec

SEEDS = 6


class Walk(gym.Env):
    """A walk on nine places that ends at both ends, with or without a picture of it."""

    def __init__(self, pixels: bool = False, limit: int = 12) -> None:
        self.pixels, self.limit = pixels, limit
        box = gym.spaces.Box
        self.observation_space = (
            box(0, 255, (32, 32, 3), np.uint8) if pixels else box(-9.0, 9.0, (2,), np.float32)
        )
        self.action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(2, 7)), 0
        self.price = float(self.np_random.random())
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.place += int(action) - 1
        self.steps += 1
        ended = self.place in (0, 8)
        reward = self.price * self.place - 0.1 + 5 * ended
        return self._seen(), reward, ended, self.steps >= self.limit and not ended, {}

    def _seen(self) -> Any:
        if not self.pixels:
            return np.array([self.place, self.price], np.float32)
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:, 3 * self.place : 3 * self.place + 3] = int(100 + 150 * self.price)
        return picture


class BoxWalk(Walk):
    """The same, with a push in [-1, 1] in two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def step(self, action: Any) -> Any:
        return super().step(1 + np.rint(np.asarray(action).sum()).clip(-1, 1))


gym.register("Walk-v0", lambda **kwargs: Walk(**kwargs))
gym.register("BoxWalk-v0", lambda **kwargs: BoxWalk(**kwargs))
CASES = [("Walk-v0", {}), ("Walk-v0", {"pixels": True}), ("BoxWalk-v0", {}), ("CartPole-v1", {})]


def replay(env: str, kwargs: dict[str, Any], window: int) -> WorldModel:
    made = gym.make(env, **kwargs)
    spec = Spec.from_spaces(made.observation_space, made.action_space, window)
    return make("replay", spec, ReplayConfig(env, kwargs, SEEDS))


@pytest.mark.parametrize("chunk", [False, True])
@pytest.mark.parametrize(("env", "kwargs"), CASES)
def test_imagined_episodes_are_the_real_ones(env: str, kwargs: dict[str, Any], chunk: bool) -> None:
    """Observations, rewards, terminations and truncations; every episode, several in a row."""
    hold, horizon = 3, 4
    model = replay(env, kwargs, hold * horizon)
    wrapper = ChunkAction if chunk else HoldAction
    reals = [wrapper(gym.make(env, **kwargs), hold) for _ in range(2)]
    other = gym.make(env, **kwargs)
    starts = np.stack([other.reset(seed=seed)[0] for seed in range(SEEDS)])
    venv = ImaginedVecEnv(model, starts, 2, hold, horizon, chunk=chunk, seed=2)
    assert venv.observation_space == reals[0].observation_space
    assert venv.action_space == reals[0].action_space
    shown = venv.reset()

    def begin(row: int) -> None:
        """Reset the real environment to where the imagined one has begun."""
        (seed,) = (seed for seed in range(SEEDS) if np.allclose(starts[seed], shown[row]))
        reals[row].reset(seed=seed)

    for row in range(2):
        begin(row)
    venv.action_space.seed(0)
    ends, decisions = {True: 0, False: 0}, [0, 0]
    for _ in range(48):
        actions = np.stack([venv.action_space.sample() for _ in range(2)])
        shown, rewards, dones, infos = venv.step(actions)
        for row, real in enumerate(reals):
            seen, reward, terminated, truncated, _ = real.step(actions[row])
            decisions[row] += 1
            truncated = truncated or (decisions[row] == horizon and not terminated)
            assert dones[row] == (terminated or truncated)
            assert infos[row]["TimeLimit.truncated"] == truncated
            assert rewards[row] == pytest.approx(reward, abs=1e-5)
            told = infos[row]["terminal_observation"] if dones[row] else shown[row]
            np.testing.assert_allclose(told, seen, atol=1e-5)
            if dones[row]:
                ends[terminated] += 1
                decisions[row] = 0
                begin(row)
    assert ends[True] and ends[False]
