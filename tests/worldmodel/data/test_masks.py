"""Action masks of recorded episodes: collected, written, read, refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

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
    Wrong.value = np.full(4, 0.5)
    with pytest.raises(ValueError, match="True and False"):
        collect(Wrong(), 1, progress=False)
    Wrong.value = np.zeros(4, bool)
    with pytest.raises(ValueError, match=r"step 1: action_masks leave no legal action; .*ended"):
        collect(Wrong(), 1, progress=False)


def test_environments_without_masks_record_none() -> None:
    assert collect("CartPole-v1", 1, progress=False)[0].masks is None
    assert isinstance(collect("CartPole-v1", 1, progress=False)[0], Episode)


def test_vector_environments_with_masks_are_refused() -> None:
    """After an automatic reset the masks of an episode's end are gone: no silent omission."""
    for venv in (gym.vector.SyncVectorEnv([Seats] * 2), DummyVecEnv([Seats] * 2)):
        with pytest.raises(ValueError, match="env: .*action_masks, which are recorded of one"):
            collect(venv, 2, progress=False)
    assert collect(Seats, 2, progress=False)[0].masks is not None  # the advice works


@pytest.mark.parametrize("wrong", [np.ones((9, 4), bool), np.ones(10, bool), np.ones((10, 4))])
def test_corrupt_masks_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    collect(Seats(), 2, folder=tmp_path, progress=False)
    path = tmp_path / "episodes-00000.npz"
    arrays = dict(np.load(path))
    assert arrays["masks"].shape == (10, 4)
    np.savez_compressed(path, **{**arrays, "masks": wrong})
    with pytest.raises(ValueError, match="corrupt shard .*masks"):
        Episodes.load(tmp_path)
