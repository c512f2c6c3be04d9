"""Action masks of recorded episodes: collected, written, read, refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

from worldmodel import ActionSpec, Episode, Episodes, collect, unpack


class Seats(gym.Env[Any, Any]):
    """Each of four seats can be taken once; to take it again is an error."""

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(4)
    masked = True

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.free = np.ones(4, np.float32)
        return self.free, {}

    def action_masks(self) -> np.ndarray:
        return self.free > 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seat = self.seat(action)
        assert self.free[seat], f"seat {seat} is taken"
        self.free[seat] = 0
        return self.free, 1.0, not self.free.any(), False, {}

    def seat(self, action: Any) -> int:
        return int(action)


class Shifted(Seats):
    action_space = gym.spaces.MultiDiscrete([4, 3])

    def action_masks(self) -> np.ndarray:
        return np.concatenate([self.free, [0, 1, 0]]).astype(np.int8)  # numbers will do

    def seat(self, action: Any) -> int:
        assert action[1] == 1
        return int(action[0])


class Numbered(Seats):
    action_space = gym.spaces.Discrete(4, start=10)

    def seat(self, action: Any) -> int:
        return int(action) - 10


class Bits(Seats):
    action_space = gym.spaces.MultiBinary(3)

    def action_masks(self) -> np.ndarray:
        return np.array([1, 0, 0, 1, 1, 1], bool)  # 0, 1, either

    def seat(self, action: Any) -> int:
        assert action[0] == 0 and action[1] == 1
        return int(self.free.argmax())


@pytest.mark.parametrize("kind", [Seats, Shifted, Numbered, Bits])
def test_random_play_is_legal_and_masks_are_recorded(kind: type[Seats]) -> None:
    episodes = collect(kind(), 20, progress=False)
    for episode in episodes:
        assert episode.masks is not None and episode.masks.dtype == np.bool_
        assert episode.masks.shape == (5, sum(episodes.action.choices))
    if kind is Seats:
        assert episodes[0].masks is not None
        np.testing.assert_array_equal(episodes[0].masks, episodes[0].observations > 0)
    firsts = {tuple(np.atleast_1d(episode.actions[0])) for episode in episodes}
    assert len(firsts) > 1


def test_wrapped_environments_have_masks_too() -> None:
    assert collect(gym.wrappers.TimeLimit(Seats(), 3), 1, progress=False)[0].masks is not None


def test_policies_choose_for_themselves() -> None:
    episodes = collect(Seats(), 1, policy=lambda free: int(free.argmax()), progress=False)
    assert episodes[0].actions.tolist() == [0, 1, 2, 3]
    assert episodes[0].masks is not None and not episodes[0].masks[-1].any()


@pytest.mark.parametrize("memory", [None, 10**6])
def test_masks_come_back_from_disk(tmp_path: Path, memory: int | None) -> None:
    recorded = collect(Seats(), 5, folder=tmp_path / "a", progress=False)
    folder = tmp_path / "a" if memory is None else unpack(tmp_path / "a", tmp_path / "b")
    read = Episodes.load(folder, memory)
    for before, after in zip(recorded, read, strict=True):
        assert after.masks is not None and before.masks is not None
        np.testing.assert_array_equal(after.masks, before.masks)
    assert read.windows(3, 4).batch(0).actions.shape == (4, 3)
    longer = collect(Seats(), 7, folder=tmp_path / "a", resume=True, progress=False)
    assert len(longer) == 7 and (longer + recorded)[-1].masks is not None


def test_masks_must_be_in_all_episodes_or_none() -> None:
    episodes = list(collect(Seats(), 2, progress=False))
    without = replace(episodes[1], masks=None)
    action = ActionSpec.from_space(Seats.action_space)
    with pytest.raises(ValueError, match=r"episodes\[1\]: has no action masks, the first episode "):
        Episodes([episodes[0], without], action)
    with pytest.raises(ValueError, match=r"episodes\[1\]: has some .* first episode none; leave"):
        Episodes([without, episodes[1]], action)
    Episodes([replace(episode, masks=None) for episode in episodes], action)  # the advice


def test_masks_of_another_size_are_refused() -> None:
    episode = collect(Seats(), 1, progress=False)[0]
    assert episode.masks is not None
    with pytest.raises(ValueError, match=r"episodes\[0\]: masks are of 3 choices, .* has 4"):
        Episodes([replace(episode, masks=episode.masks[:, :3])], ActionSpec("discrete", (), (4,)))
    for wrong in (episode.masks[:-1], episode.masks[0], episode.masks.astype(np.int8)):
        with pytest.raises(ValueError, match=r"masks: expected bool \(5, n\), one for each"):
            replace(episode, masks=wrong)


def test_what_an_environment_returns_is_checked() -> None:
    class Wrong(Seats):
        value: Any = np.ones(5, bool)

        def action_masks(self) -> np.ndarray:
            return self.value

    with pytest.raises(ValueError, match="Wrong, episode of seed 0, reset: expected action masks"):
        collect(Wrong(), 1, progress=False)
    Wrong.value = [[True], [True, False]]
    with pytest.raises(ValueError, match="Wrong, episode of seed 0, reset: .* got no array"):
        collect(Wrong(), 1, progress=False)
    Wrong.value = np.full(4, 0.5)
    with pytest.raises(ValueError, match="True and False"):
        collect(Wrong(), 1, progress=False)
    Wrong.value = np.zeros(4, bool)
    with pytest.raises(ValueError, match=r"step 1: action_masks leave no legal action; .*ended"):
        collect(Wrong(), 1, progress=False)


def test_environments_without_masks_record_none() -> None:
    assert collect("CartPole-v1", 1, progress=False)[0].masks is None
    assert isinstance(collect("CartPole-v1", 1, progress=False)[0], Episode)


class Queue(Seats):
    """Episodes differ in length: the door may close before all seats are taken."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        free, reward, over, _, info = super().step(action)
        return free, reward, over, bool(self.np_random.random() < 0.2) and not over, info


class Together(gym.vector.VectorEnv[Any, Any, Any]):
    """Environments that are computed together, and have the masks of all."""

    num_envs = 3
    single_observation_space = Seats.observation_space
    single_action_space = Seats.action_space
    metadata: Any = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self) -> None:
        self.envs = gym.vector.SyncVectorEnv([Queue] * 3)

    def reset(self, **arguments: Any) -> Any:
        return self.envs.reset(**arguments)

    def step(self, actions: Any) -> Any:
        return self.envs.step(actions)

    def action_masks(self) -> np.ndarray:
        return np.stack(self.envs.call("action_masks"))


def queues(mode: AutoresetMode, kind: Any = gym.vector.SyncVectorEnv) -> Any:
    return kind([Queue] * 3, autoreset_mode=mode)


VECTORS: dict[str, Any] = {
    **{f"Sync, {mode.name}": partial(queues, mode) for mode in AutoresetMode},
    "Async, DISABLED": partial(queues, AutoresetMode.DISABLED, gym.vector.AsyncVectorEnv),
    "together": Together,
    "SB3": lambda: DummyVecEnv([Queue] * 3),
    "SB3, processes": lambda: SubprocVecEnv([Queue] * 2, "fork"),
    "SB3, wrapped": lambda: VecMonitor(DummyVecEnv([Queue] * 3)),
}


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("max_steps", [99, 2])
def test_vector_environments_record_the_masks_of_one(kind: str, max_steps: int) -> None:
    """To take a seat twice is an error: what idle environments do is legal, too."""
    settings: dict[str, Any] = {"episodes": 20, "max_steps": max_steps, "progress": False}
    known_at_ends = not (kind.startswith("SB3") or "SAME_STEP" in kind)
    episodes = collect(VECTORS[kind], **settings)
    assert len({len(one.actions) for one in episodes}) > 1
    for one, other in zip(episodes, collect(Queue, **settings), strict=True):
        assert one.masks is not None and other.masks is not None
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.masks[:-1], other.masks[:-1])
        if known_at_ends:
            np.testing.assert_array_equal(one.masks[-1], other.masks[-1])
        else:  # cut by max_steps they are known
            assert not one.masks[-1].any() or len(one.actions) == max_steps


@pytest.mark.parametrize("kind", [Shifted, Numbered, Bits])
def test_all_kinds_of_masks_of_vector_environments(kind: type[Seats]) -> None:
    for one, other in zip(
        collect(DummyVecEnv([kind] * 2), 5, progress=False),
        collect(kind, 5, progress=False),
        strict=True,
    ):
        assert one.masks is not None and other.masks is not None
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.masks[:-1], other.masks[:-1])


def test_masks_of_a_vector_environment_resume(tmp_path: Path) -> None:
    venv = DummyVecEnv([Queue] * 2)
    collect(venv, 3, folder=tmp_path, progress=False)
    both = collect(venv, 6, folder=tmp_path, resume=True, progress=False)
    assert all(one.masks is not None for one in both)


class Standing(gym.Env[Any, Any]):
    """The same spaces, without masks."""

    observation_space, action_space = Seats.observation_space, Seats.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(4, np.float32), {}


def test_all_environments_have_masks_or_none() -> None:
    venv = gym.vector.SyncVectorEnv([Seats, Standing])
    with pytest.raises(ValueError, match="env: 1 of the 2 environments of SyncVectorEnv have act"):
        collect(venv, 2, progress=False)


def test_logged_arrays_have_masks() -> None:
    logged = collect(Queue, 3, progress=False)
    steps = [(one.observations[:-1], one.actions, one.rewards) for one in logged]
    observations, actions, rewards = (np.concatenate(each) for each in zip(*steps, strict=True))
    following = np.concatenate([one.observations[1:] for one in logged])
    ends = np.concatenate([np.arange(len(one.actions)) == len(one.actions) - 1 for one in logged])
    masks = np.concatenate([one.masks[:-1] for one in logged if one.masks is not None])
    given: dict[str, Any] = {
        "observations": observations, "actions": actions, "rewards": rewards, "terminated": ends,
        "next_observations": following, "action_space": Queue.action_space,
    }  # fmt: skip
    read = Episodes.from_arrays(**given, masks=masks.tolist())
    for one, other in zip(read, logged, strict=True):
        assert one.masks is not None and other.masks is not None
        np.testing.assert_array_equal(one.masks[:-1], other.masks[:-1])
        assert not one.masks[-1].any()
    for wrong in (masks[:-1], masks[:, :3], 0.5 * masks):
        with pytest.raises(ValueError, match="^masks: expected action masks"):
            Episodes.from_arrays(**given, masks=wrong)
    assert Episodes.from_arrays(**given)[0].masks is None


def test_numbers_have_no_masks() -> None:
    class Numbers(Seats):
        action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

        def seat(self, action: Any) -> int:
            return int(self.free.argmax())

    for env in (Numbers, DummyVecEnv([Numbers] * 2)):
        assert collect(env, 2, progress=False)[0].masks is None


@pytest.mark.parametrize("wrong", [np.ones((9, 4), bool), np.ones(10, bool), np.ones((10, 4))])
def test_corrupt_masks_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    collect(Seats(), 2, folder=tmp_path, progress=False)
    path = tmp_path / "episodes-00000.npz"
    arrays = dict(np.load(path))
    assert arrays["masks"].shape == (10, 4)
    np.savez_compressed(path, **{**arrays, "masks": wrong})
    with pytest.raises(ValueError, match="corrupt shard .*masks"):
        Episodes.load(tmp_path)
