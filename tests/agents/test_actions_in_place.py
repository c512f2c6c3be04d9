"""Environments that change the action they are given: nobody else's action changes with it."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from agents.evaluation import evaluate, play
from agents.imagination import Imagination
from agents.training.dyna.recorder import RecordEpisodes
from agents.vec_env import ImaginedVecEnv
from agents.wrappers import ChunkAction, HoldAction
from worldmodel import Spec, collect, make
from worldmodel.models.baselines.replay import ReplayConfig


class Halving(gym.Env):
    """Halves its action in place, and returns what it was given as the reward."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        self.buffer = np.zeros(2, np.float32)
        return self.buffer, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        given = float(action[0])
        action *= 0.5
        self.time += 1
        self.buffer += given
        return self.buffer, given, False, self.time == 6, {}


class HalfAgent:
    """Always returns the same array, as an agent with a buffer does."""

    def __init__(self) -> None:
        self.action = np.full((1, 1), 0.5, np.float32)

    def predict(self, observation: Any, state: Any = None, *_: Any, **__: Any) -> tuple[Any, None]:
        return self.action, None


def half(observation: Any) -> Any:
    observation[:] = 7  # a policy may normalise in place
    return FIXED


FIXED = np.full(1, 0.5, np.float32)


def test_a_held_action_stays_the_same() -> None:
    for env, action in (
        (HoldAction(Halving(), 3), np.full(1, 0.5, np.float32)),
        (ChunkAction(Halving(), 3), np.full(3, 0.5, np.float32)),
    ):
        env.reset(seed=0)
        assert env.step(action)[1] == 1.5  # before: .875
        assert (action == 0.5).all()


def test_collect_records_the_actions_that_it_gave() -> None:
    for policy in (half, None):
        (episode,) = collect(Halving(), 1, policy=policy, hold=3, progress=False)
        np.testing.assert_array_equal(episode.actions[:, 0], episode.rewards)
        assert len(set(episode.rewards[:3])) == 1
        reached = np.cumsum(episode.rewards)
        np.testing.assert_allclose(episode.observations[1:, 0], reached, rtol=1e-6)
    assert FIXED == 0.5


def test_agents_that_return_their_buffer_play_the_same_action() -> None:
    agent = HalfAgent()
    _, actions, rewards = play(Halving(), agent, seed=0, steps=6, hold=3)
    assert (actions == 0.5).all() and (rewards == 0.5).all()
    assert evaluate(agent, Halving, 2, hold=3, num_envs=1).tolist() == [3.0, 3.0]
    assert agent.action == 0.5


def test_the_recorder_leaves_the_action_alone() -> None:
    recorder, action = RecordEpisodes(Halving()), np.full(1, 0.5, np.float32)
    recorder.reset(seed=0)
    recorder.step(action)
    recorder.step(action)
    assert action == 0.5
    assert (recorder.recorded()[0].actions == 0.5).all()


def test_replay_leaves_its_plans_alone(request: Any) -> None:
    gym.register("agents-tests/Halving-v0", entry_point=Halving)
    request.addfinalizer(lambda: gym.registry.pop("agents-tests/Halving-v0"))
    spec = Spec.from_spaces(Halving.observation_space, Halving.action_space, 6)
    model = make("replay", spec, ReplayConfig("agents-tests/Halving-v0", episodes=2))
    imagination = Imagination(model)
    imagination.reset(np.zeros((1, 2), np.float32))
    worlds = imagination.worlds(8)
    plans = torch.full((1, 1, 3, 1), 0.5)
    scores = [float(imagination.score(worlds, plans)) for _ in range(2)]
    assert scores == [1.5, 1.5]


def test_imagined_decisions_are_those_at_the_call() -> None:
    model = make("copy-last", Spec.from_spaces(Halving.observation_space, Halving.action_space, 6))
    venv = ImaginedVecEnv(model, np.zeros((1, 2), np.float32), num_envs=1)
    venv.reset()
    actions = np.full((1, 1), 0.5, np.float32)
    venv.step_async(actions)
    actions[:] = 0
    assert venv._chosen is not None and float(venv._chosen) == 0.5


def test_resets_into_one_buffer_are_different_starts() -> None:
    class Counting(Halving):
        count = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
            self.count += 1
            if not hasattr(self, "buffer"):
                self.buffer = np.zeros(2, np.float32)
            self.buffer[:] = self.count
            return self.buffer, {}

    model = make("copy-last", Spec.from_spaces(Halving.observation_space, Halving.action_space, 6))
    frames = ImaginedVecEnv(model, Counting(), num_envs=3).reset()
    assert frames[:, 0].tolist() == [1, 2, 3]
