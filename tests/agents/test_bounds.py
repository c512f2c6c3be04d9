"""Observations beyond the bounds that their environment declares are imagined as they are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import ImaginedVecEnv, RecordEpisodes
from worldmodel import Episodes, Spec, collect, load, make, save


class Beyond(gym.Env[Any, Any]):
    """Declares [-1, 1] and goes on to 1.7 by steps of .1; the second number stays within."""

    observation_space = spaces.Box(np.float64([-1, -0.1]), np.float64([1, 0.1]), dtype=np.float64)
    action_space = spaces.Discrete(2)
    far = 1.7

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.x = 0.8
        return np.array([self.x, 0.1]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.x += 0.1
        return np.array([self.x, -0.1]), self.x, False, self.x > self.far - 0.05, {}


class Within(Beyond):
    far = 1.0


WARNING = "^observations: number 0 goes from 0.8 to 1.7, its space from -1 to 1; a model made for"


def test_imagination_reaches_as_far_as_the_data(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=WARNING) as warned:
        episodes = collect(Beyond(), 3, folder=tmp_path / "episodes", progress=False)
    assert len(warned) == 1
    spec = episodes.spec(4)
    assert spec.observation_space() == Beyond.observation_space
    np.testing.assert_allclose(spec.most, [1.7, 0.1], rtol=1e-6)
    assert Spec.from_dict(spec.to_dict()) == spec
    numbers = spec.to_numpy(torch.tensor([[1.69, 0.2], [9.0, 0.0], [-0.9, 0.0]]))
    np.testing.assert_allclose(numbers, [[1.69, 0.1], [1.7, 0], [-0.9, 0]], rtol=1e-6)
    assert Episodes.load(tmp_path / "episodes").spec(4) == spec
    save(make("copy-last", spec), tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.spec == spec
    venv = ImaginedVecEnv(model, np.float32([[1.69, 0]]), num_envs=1)
    venv.reset()
    assert venv.step(np.zeros(1, np.int64))[0][0, 0] == pytest.approx(1.69)  # before: 1
    with pytest.warns(UserWarning, match=WARNING):
        collect(Beyond(), 4, folder=tmp_path / "episodes", resume=True, progress=False)
    (one,) = episodes.split(0.34)[1]
    with pytest.warns(UserWarning, match=WARNING):
        again = Episodes.from_arrays(
            one.observations,
            one.actions,
            one.rewards,
            np.zeros(len(one.actions)),
            action_space=Beyond.action_space,
            observation_space=Beyond.observation_space,
        )
    assert again.spec(4) == spec


def test_bounds_that_are_kept_say_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        episodes = collect(Within(), 2, progress=False)
    assert episodes.spec(4) == Spec.from_spaces(Within.observation_space, Within.action_space, 4)
    assert "most" not in episodes.spec(4).to_dict()
    with pytest.raises(ValueError, match="^least, most: expected one for each of 2 numbers"):
        Spec((2,), episodes.action, 4, 0, (0, 0), (1, 1), "float32", least=(0,), most=(2,))


class Clock(Within):
    """Observes the seconds since 1970, a minute more each step."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        self.time = 0
        return np.array([1.7e9]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        return np.array([1.7e9 + 60 * self.time]), 0.0, False, self.time == 6, {}


class Salary(Within):
    """Pays a billion a step, and one more with each."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        observation, x, *rest = super().step(action)
        return observation, 1e9 + round(10 * x), *rest


def test_rewards_that_float32_loses_are_refused() -> None:
    """They were recorded as all the same."""
    message = "rewards: change by 1 a step around 1e.09, .*TransformReward"
    Salary.far = 1.7
    with pytest.raises(ValueError, match=f"Salary, episode of seed 0: {message}"), quiet():
        collect(Salary(), 2, progress=False)
    paid = 1e9 + np.arange(5.0)
    logged: Any = (np.zeros((6, 1)), np.zeros(5, int), paid, np.eye(5)[4])
    with pytest.raises(ValueError, match=f"episode 0 .*{message}"):
        Episodes.from_arrays(*logged, action_space=Salary.action_space)
    with quiet():
        less = gym.wrappers.TransformReward(Salary(), lambda reward: float(reward) - 1e9)
        assert np.ptp(collect(less, 1, progress=False)[0].rewards) == 8


def test_parts_of_logged_dicts_are_named_when_float32_loses_them() -> None:
    space = spaces.Dict(dict.fromkeys(("a", "b"), Clock.observation_space))
    logged: Any = {"a": np.zeros((6, 1)), "b": 1.7e9 + 60 * np.arange(6.0)[:, None]}
    with pytest.raises(ValueError, match="observations: number 0 of 'b' changes by 60 a step"):
        Episodes.from_arrays(
            logged, np.zeros(5, int), np.zeros(5), np.eye(5)[4],
            action_space=Clock.action_space, observation_space=space,
        )  # fmt: skip


def quiet() -> warnings.catch_warnings:
    """Observations are beyond their bounds here."""
    return warnings.catch_warnings(action="ignore")


def test_recorders_refuse_what_float32_loses() -> None:
    recorder = RecordEpisodes(Clock())
    recorder.reset(seed=0)
    with pytest.raises(ValueError, match="number 0 changes by 60 a step around 1.7e\\+09"):
        for _ in range(6):
            recorder.step(0)
