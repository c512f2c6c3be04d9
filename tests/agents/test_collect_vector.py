"""Vector environments record the episodes that single ones do, whatever their autoreset."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from agents import ImaginedVecEnv, RandomAgent, evaluate
from worldmodel import Episodes, collect, make


class Line(gym.Env[Any, Any]):
    """Observes where it is and what it was given; ends by chance, or after 9 steps."""

    observation_space = spaces.Box(-99, 99, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, chance: float = 0.2, seconds: float = 0.0) -> None:
        self.chance, self.seconds = chance, seconds

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        start = (options or {}).get("start", self.np_random.random())
        self.buffer = np.float32([start, 0])
        return self.buffer, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        time.sleep(self.seconds)
        self.time += 1
        self.buffer += [action[0], 1]
        action *= 0
        over = bool(self.np_random.random() < self.chance)
        return self.buffer, float(self.buffer[0]), over, self.time == 9 and not over, {}


def vectors(mode: AutoresetMode, kind: Any = SyncVectorEnv) -> Any:
    return kind([Line] * 3, autoreset_mode=mode)


VECTORS = {
    **{f"Sync, {mode.name}": partial(vectors, mode) for mode in AutoresetMode},
    "Async, DISABLED": partial(vectors, AutoresetMode.DISABLED, AsyncVectorEnv),
    "Async, SAME_STEP": partial(vectors, AutoresetMode.SAME_STEP, AsyncVectorEnv),
    "SB3": lambda: DummyVecEnv([Line] * 3),
    "SB3, processes": lambda: SubprocVecEnv([Line] * 2, "fork"),
    "SB3, Monitor": lambda: make_vec_env(Line, 3),
    "one": lambda: SyncVectorEnv([Line]),
}


def same(episodes: Episodes, others: Episodes) -> None:
    assert len(episodes) == len(others)
    for one, other in zip(episodes, others, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, other.rewards)
        assert one.terminated == other.terminated


@pytest.mark.parametrize("kind", VECTORS)
def test_the_episodes_are_those_of_one_environment(kind: str) -> None:
    make_venv: Any = VECTORS[kind]
    for settings in (
        {"episodes": 10},
        {"episodes": 10, "hold": 2, "max_steps": 5, "seed": 7},
        {"steps": 60, "policy": lambda observation: np.float32([observation[0] > 0.5])},
    ):
        same(
            collect(make_venv, **settings, progress=False),
            collect(Line(), **settings, progress=False),
        )


def test_one_that_was_given_stays_open_and_names_its_id() -> None:
    venv = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    episodes = collect(venv, 5, progress=False)
    same(episodes, collect("CartPole-v1", 5, progress=False))
    assert episodes.env_id == "CartPole-v1"
    assert collect(make_vec_env("CartPole-v1", 2), 1, progress=False).env_id == "CartPole-v1"
    venv.reset()


def test_environments_that_share_a_generator() -> None:
    venv = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    episodes = collect(venv, 7, progress=False)
    for episode in episodes:
        assert episode.terminated and (episode.rewards == 1).all()
        assert np.abs(np.diff(episode.observations[:, 0])).max() < 0.1  # no other episode's frame
        assert abs(episode.observations[-1, 2]) > 0.2094 > abs(episode.observations[-2, 2])


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_our_own_vector_environments(mode: str) -> None:
    name, settings = "envs:narratives/TravelingSalesman-v0", {"controlled": True, "size": 32}
    venv = gym.make_vec(
        name, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode=mode, **settings
    )
    same(
        collect(venv, 3, hold=5, progress=False),
        collect(gym.make(name, **settings), 3, hold=5, progress=False),
    )


def test_imagination_can_be_recorded() -> None:
    recorded = collect(Line(), 5, progress=False)
    model = make("copy-last", recorded.spec(6))
    episodes = collect(
        ImaginedVecEnv(model, recorded, num_envs=2, stagger=False), 3, progress=False
    )
    assert [len(one.actions) for one in episodes] == [6, 6, 6]


def test_frame_stacks_and_recordings_on_disk(tmp_path: Path) -> None:
    stacked = VecFrameStack(DummyVecEnv([Line] * 2), 2)
    episodes = collect(stacked, 3, progress=False)
    plain = collect(Line(), 3, progress=False)
    for one, other in zip(episodes, plain, strict=True):
        np.testing.assert_array_equal(one.observations[:, 2:], other.observations)
    make_venv = VECTORS["Sync, DISABLED"]
    collect(make_venv, 4, folder=tmp_path / "a", progress=False)
    same(
        collect(make_venv, 7, folder=tmp_path / "a", resume=True, progress=False),
        collect(Line(), 7, progress=False),
    )


@pytest.mark.parametrize("kind", VECTORS)
def test_options_reach_every_reset(kind: str) -> None:
    for env in (VECTORS[kind], Line):
        episodes = collect(env, 7, options={"start": 5.0}, progress=False)
        assert {float(one.observations[0, 0]) for one in episodes} == {5.0}


def test_options_are_a_dict() -> None:
    with pytest.raises(TypeError, match="options: expected a dict of the environment's, got 3"):
        collect(Line(), 1, options=3, progress=False)  # type: ignore[arg-type]


def test_normalising_while_recording_is_refused() -> None:
    venv = VecNormalize(DummyVecEnv([Line] * 2))
    for one in (venv, VecFrameStack(venv, 2)):
        with pytest.raises(ValueError, match="^env: VecNormalize scales .* its venv, or set"):
            collect(one, 2, progress=False)
    same(collect(venv.venv, 2, progress=False), collect(Line(), 2, progress=False))
    venv.training = False
    assert len(collect(venv, 2, progress=False)) == 2


def test_workers_are_refused() -> None:
    for env in (DummyVecEnv([Line]), VECTORS["SB3"]):
        with pytest.raises(TypeError, match="^workers: a vector environment plays side by side"):
            collect(env, 4, workers=2, progress=False)


def test_elsewhere_a_vector_environment_is_refused() -> None:
    with pytest.raises(TypeError, match="got DummyVecEnv; of vector environments collect alone"):
        evaluate(RandomAgent(Line.action_space), DummyVecEnv([Line]), 1)  # type: ignore[arg-type]


def test_imagined_episodes_do_not_begin_in_vector_environments() -> None:
    venv = DummyVecEnv([Line] * 2)
    model = make("copy-last", collect(venv, 2, progress=False).spec(4))
    with pytest.raises(TypeError, match="starts: .* vector environment DummyVecEnv; give a func"):
        ImaginedVecEnv(model, venv)  # type: ignore[arg-type]
    for starts in (Line, collect(venv, 2, progress=False)):
        ImaginedVecEnv(model, starts).reset()


def test_the_number_of_steps_of_the_whole_is_that_of_one_in_eight() -> None:
    """8 environments take an eighth of the steps, whatever the episodes' lengths."""

    class Counting(SyncVectorEnv):
        count = 0

        def step(self, actions: Any) -> Any:
            self.count += 1
            return super().step(actions)

    venv = Counting([Line] * 8, autoreset_mode=AutoresetMode.DISABLED)
    episodes = collect(venv, 400, progress=False)
    assert venv.count < 1.1 * episodes.steps / 8
    equal = Counting([partial(Line, 0.0)] * 8)
    assert collect(equal, 80, progress=False).steps == 720 and equal.count == 90
