"""What an SB3 algorithm gathered, as episodes: the same that its environment played."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents import RecordEpisodes, from_replay_buffer, merge_episodes
from worldmodel import Episodes


class Wide(gym.Env[Any, Any]):
    """Observes the last action, of an uneven Box; ends by chance or after 7 steps."""

    observation_space = gym.spaces.Box(-9, 9, (1,), np.float64)
    action_space = gym.spaces.Box(np.float32([-1]), np.float32([3]))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.random(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        over = bool(self.np_random.random() < 0.15)
        return np.float64(action), float(action[0]), over, self.time == 7 and not over, {}


def same(episodes: Episodes, others: Episodes) -> None:
    assert len(episodes) == len(others)
    for one, other in zip(episodes, others, strict=True):
        np.testing.assert_allclose(one.observations, other.observations, atol=1e-6)
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-6)
        np.testing.assert_allclose(one.rewards, other.rewards, atol=1e-6)
        assert one.terminated == other.terminated


def test_a_full_buffer_of_two_environments() -> None:
    recorders = [RecordEpisodes(Wide()) for _ in range(2)]
    venv = VecNormalize(DummyVecEnv([lambda one=one: one for one in recorders]))
    agent = SAC("MlpPolicy", venv, buffer_size=1000, learning_starts=1000, seed=0).learn(90)
    assert agent.replay_buffer is not None
    episodes = from_replay_buffer(agent.replay_buffer, env_id="Wide-v0")
    same(episodes, merge_episodes(recorders))
    assert episodes.env_id == "Wide-v0" and episodes.spec(1).dtype == "float64"
    lengths = [len(one.actions) for one in episodes]
    assert max(lengths) == 7 and len({one.terminated for one in episodes}) == 2
    small = SAC("MlpPolicy", venv, buffer_size=40, learning_starts=1000, seed=0).learn(100)
    assert small.replay_buffer is not None and small.replay_buffer.full
    last = from_replay_buffer(small.replay_buffer)
    recorded = merge_episodes(recorders)
    assert last.steps == 40
    assert last[-1].observations[-1] == recorded[-1].observations[-1]


def test_images_and_discrete_actions() -> None:
    recorder = RecordEpisodes(FakeEnv(steps=6))
    agent = DQN("MlpPolicy", recorder, buffer_size=99, learning_starts=99, seed=0).learn(20)
    assert agent.replay_buffer is not None
    same(from_replay_buffer(agent.replay_buffer), recorder.episodes())
    frames = DQN("CnnPolicy", LargerFakeEnv(), buffer_size=9, learning_starts=99, seed=0).learn(8)
    assert frames.replay_buffer is not None
    assert frames.replay_buffer.observation_space.shape == (3, 40, 40)  # SB3 transposes images
    assert from_replay_buffer(frames.replay_buffer)[0].observations.shape == (9, 40, 40, 3)


class LargerFakeEnv(FakeEnv):
    """Images as large as SB3's network needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)

    def reset(self, **settings: Any) -> tuple[Any, dict]:
        super().reset(**settings)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return (self.observation_space.sample(), *super().step(action)[1:])


def test_other_buffers_are_refused() -> None:
    spaces = Wide.observation_space, Wide.action_space
    with pytest.raises(ValueError, match="^buffer: empty"):
        from_replay_buffer(ReplayBuffer(5, *spaces))
    lean = ReplayBuffer(5, *spaces, optimize_memory_usage=True, handle_timeout_termination=False)
    with pytest.raises(ValueError, match="^buffer: with optimize_memory_usage=True"):
        from_replay_buffer(lean)
    with pytest.raises(TypeError, match="^buffer: expected .* got list"):
        from_replay_buffer([])  # type: ignore[arg-type]
