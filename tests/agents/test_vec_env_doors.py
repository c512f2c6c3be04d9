"""Options of resets, rendering and pickling of imagined environments."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel, frames
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecMonitor, VecVideoRecorder

from agents import ImaginedVecEnv
from worldmodel import Episodes, collect, make


class Placed(gym.Env[Any, Any]):
    """Begins where the options say."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return np.float32([(options or {}).get("place", -1)]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return np.zeros(1, np.float32), 0.0, False, False, {}


def recorded() -> Episodes:
    return collect(Placed(), 2, max_steps=5, progress=False)


def first_frames(num: int, rng: np.random.Generator) -> Any:
    return rng.random((num, 1)).astype(np.float32)


def test_options_reach_live_starts() -> None:
    model = make("copy-last", recorded().spec(4))
    venv = ImaginedVecEnv(model, Placed, num_envs=3, horizon=2, stagger=False)
    assert venv.reset()[:, 0].tolist() == [-1, -1, -1]
    venv.set_options({"place": 4})
    assert venv.reset()[:, 0].tolist() == [4, 4, 4]
    venv.set_options([{"place": 1}, {}, {"place": 3}])
    assert VecMonitor(venv).reset()[:, 0].tolist() == [1, -1, 3]
    assert venv.reset()[:, 0].tolist() == [-1, -1, -1]  # SB3: for the next reset alone
    given = ImaginedVecEnv(model, np.zeros((1, 1), np.float32), num_envs=1)
    given.set_options({"place": 4})
    with pytest.raises(ValueError, match="^options: are for the resets of an environment"):
        given.reset()
    given.reset()


# SB3's recorder is deleted half made
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_vectors_render_nothing(tmp_path: Path) -> None:
    venv = ImaginedVecEnv(make("copy-last", recorded().spec(4)), recorded(), num_envs=2)
    venv.reset()
    assert venv.render_mode is None and venv.get_images() == [None, None]
    with pytest.warns(UserWarning, match="no `render_mode` was passed"):
        assert venv.render() is None
    with pytest.raises(AssertionError, match="render_mode must be 'rgb_array'"):
        VecVideoRecorder(venv, str(tmp_path), lambda step: step == 0)
    images = ImaginedVecEnv(FakeModel(), frames(1, 2), num_envs=2)
    images.reset()
    assert images.render_mode == "rgb_array" and images.render() is not None


@pytest.mark.parametrize("kind", ["frames", "episodes", "function", "environment", "class"])
def test_it_pickles(kind: str) -> None:
    starts: Any = {
        "frames": np.float32([[1], [2], [3]]),
        "episodes": recorded(),
        "function": first_frames,
        "environment": Placed(),
        "class": Placed,
    }[kind]
    venv = ImaginedVecEnv(make("copy-last", recorded().spec(4)), starts, num_envs=4, seed=3)
    venv.reset()
    again = pickle.loads(pickle.dumps(venv))
    for action in (0, 1, 0, 1, 1):  # past the end of the episodes
        actions = np.full(4, action)
        for one, other in zip(venv.step(actions), again.step(actions), strict=True):
            np.testing.assert_equal(one, other)
    assert again.reset().shape == (4, 1)


def test_it_pickles_with_images() -> None:
    venv = ImaginedVecEnv(FakeModel(), FakeEnv(), num_envs=2)
    again = pickle.loads(pickle.dumps(venv))
    np.testing.assert_array_equal(venv.reset(), again.reset())
