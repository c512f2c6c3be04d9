"""Episodes to Minari and back, without the network."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from worldmodel import ActionSpec, Episode, Episodes, collect, from_minari, to_minari
from worldmodel.data.episodes import Episodes as Set

minari = pytest.importorskip("minari")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def shaded(steps: int, terminated: bool, seed: int) -> Episode:
    """Frames that JPEG would not keep."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (steps + 1, 32, 32, 3), np.uint8)
    actions = random.integers(0, 4, steps)
    return Episode(frames, actions, random.normal(size=steps).astype(np.float32), terminated)


def same(one: Set, other: Set) -> None:
    assert one.action == other.action and one.observation_space == other.observation_space
    for first, second in zip(one, other, strict=True):
        assert first.terminated == second.terminated
        for name in ("observations", "actions", "rewards"):
            left, right = getattr(first, name), getattr(second, name)
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right)


def test_images_and_choices() -> None:
    action = ActionSpec("discrete", (), (4,))
    episodes = Episodes([shaded(3, True, 0), shaded(5, False, 1)], action)
    dataset = to_minari(episodes, "test/shades-v0", description="noise")
    assert [bool(each.truncations[-1]) for each in dataset.iterate_episodes()] == [False, True]
    same(from_minari("test/shades-v0"), episodes)
    same(from_minari(dataset), episodes)
    chosen = dataset.filter_episodes(lambda each: bool(each.terminations[-1]))
    assert len(from_minari(chosen)) == 1
    with pytest.raises(FileExistsError, match="choose another name or version"):
        to_minari(episodes, "test/shades-v0")


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_vectors(env: str) -> None:
    episodes = collect(env, 2, max_steps=150, progress=False)
    to_minari(episodes, "test/vectors-v0", env=env)
    again = from_minari("test/vectors-v0")
    same(again, episodes)
    assert again.spec(5) == episodes.spec(5)
    assert {each.terminated for each in again} == {env == "CartPole-v1"}


def dataset(space: gym.Space[Any], observations: Any, terminations: list[bool]) -> Any:
    """Of one episode, as others may have written it: float64, Dicts."""
    from minari.data_collector import EpisodeBuffer

    steps = len(terminations)
    buffer = EpisodeBuffer(
        id=0, observations=observations, actions=np.zeros((steps, 1)), rewards=[1.0] * steps,
        terminations=terminations, truncations=[False] * steps,
    )  # fmt: skip
    actions = gym.spaces.Box(-1.0, 1.0, (1,), np.float64)
    return minari.create_dataset_from_buffers(
        "test/foreign-v0", [buffer], observation_space=space, action_space=actions
    )


def test_of_others() -> None:
    vector = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    space = gym.spaces.Dict({"observation": vector, "goal": vector})
    values = np.arange(8.0).reshape(4, 2)
    found = dataset(space, {"observation": values, "goal": -values}, [False, False, True])
    episodes = from_minari(found, observation="goal")
    assert episodes[0].observations.dtype == np.float32 and episodes[0].terminated
    np.testing.assert_array_equal(episodes[0].observations, -values)
    assert episodes.action.dtype == "float64" and episodes.spec(2).dtype == "float64"
    with pytest.raises(ValueError, match=r"observation: expected one of .*'goal'"):
        from_minari(found, observation="nothing")
    together = from_minari(found)
    assert together.observation_space == space
    np.testing.assert_array_equal(together[0].observations, np.concatenate([-values, values], 1))
    again = from_minari(to_minari(together, "test/dicts-v0"))
    np.testing.assert_array_equal(again[0].observations, together[0].observations)


def test_goes_on_after_its_end() -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    found = dataset(space, np.zeros((4, 2), np.float32), [False, True, False])
    with pytest.raises(ValueError, match="episode 0 goes on after a termination at step 2 of 3"):
        from_minari(found)


def test_spaces_that_do_not_fit() -> None:
    found = dataset(gym.spaces.Discrete(5), np.zeros(4, np.int64), [False, False, True])
    with pytest.raises(ValueError, match="observation_space: expected a uint8 Box"):
        from_minari(found)


def test_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="download=True"):
        from_minari("test/nothing-v0")
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install 'jumpy-worldmodel\[minari\]'"):
        from_minari("test/nothing-v0")
