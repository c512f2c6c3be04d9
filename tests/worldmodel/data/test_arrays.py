"""Logged arrays become the episodes that they hold, or are refused by name."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformObservation

from worldmodel import ActionSpec, Episode, Episodes, Spec, collect

TWO = gym.spaces.Discrete(2)
LENGTHS = [3, 1, 4]
TERMINATED = np.array([0, 0, 1, 1, 0, 0, 0, 0], bool)
ACTIONS, REWARDS = np.arange(8) % 2, np.arange(8.0)
FRAMES = np.arange(22, dtype=np.float32).reshape(11, 2)
FIRST = np.array([0, 1, 2, 4, 6, 7, 8, 9])  # of FRAMES, before each step


@pytest.mark.parametrize("with_next", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, list, "images"])
def test_arrays_are_cut_where_episodes_end(with_next: bool, kind: Any) -> None:
    frames: Any = FRAMES
    if kind == "images":
        frames, kind = np.tile(np.uint8(FRAMES[:, :1, None, None]), (1, 16, 16, 1)), np.asarray
    if with_next:
        given = {"observations": frames[FIRST], "next_observations": frames[FIRST + 1]}
    else:
        given = {"observations": frames}
    given |= {"actions": ACTIONS, "rewards": REWARDS, "terminated": TERMINATED}
    episodes = Episodes.from_arrays(
        **{name: kind(values) for name, values in given.items()}, action_space=TWO
    )
    assert [len(one.actions) for one in episodes] == LENGTHS
    assert [one.terminated for one in episodes] == [True, True, False]
    np.testing.assert_array_equal(np.concatenate([one.observations for one in episodes]), frames)
    assert np.concatenate([one.actions for one in episodes]).tolist() == ACTIONS.tolist()
    assert np.concatenate([one.rewards for one in episodes]).tolist() == REWARDS.tolist()
    assert episodes.spec(3).action == ActionSpec("discrete", (), (2,))


def test_truncated_steps_end_episodes_too() -> None:
    truncated = np.zeros(8, bool)
    truncated[5] = True
    frames = np.insert(FRAMES, 9, 50, axis=0)
    episodes = Episodes.from_arrays(
        frames, ACTIONS, REWARDS, TERMINATED, truncated, action_space=TWO
    )
    assert [len(one.actions) for one in episodes] == [3, 1, 2, 2]
    assert [one.terminated for one in episodes] == [True, True, False, False]


def at_the_end(episode: Episode, value: bool) -> list[bool]:
    return [False] * (len(episode.actions) - 1) + [value]


def test_arrays_are_those_that_collect_records() -> None:
    for name in ("CartPole-v1", "Pendulum-v1"):
        env = gym.make(name)
        recorded = collect(env, 3, progress=False)
        again = Episodes.from_arrays(
            np.concatenate([one.observations for one in recorded]),
            np.concatenate([one.actions for one in recorded]),
            np.concatenate([one.rewards for one in recorded]),
            np.concatenate(
                [[*[False] * (len(one.actions) - 1), one.terminated] for one in recorded]
            ),
            np.concatenate([[*[False] * (len(one.actions) - 1), True] for one in recorded]),
            action_space=env.action_space,
            observation_space=env.observation_space,
        )
        assert again.spec(5) == recorded.spec(5)
        for one, other in zip(recorded, again, strict=True):
            np.testing.assert_array_equal(one.observations, other.observations)
            np.testing.assert_array_equal(one.actions, other.actions)
            np.testing.assert_array_equal(one.rewards, other.rewards)
            assert one.terminated == other.terminated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observations": FRAMES[FIRST]}, r"observations: 8 steps in 3 episodes have \(11, 2\)"),
        ({"terminated": TERMINATED[:-1]}, "terminated: expected one bool for each of the 8 steps"),
        ({"terminated": True}, "terminated: expected one bool for each"),
        ({"terminated": TERMINATED * 2}, "terminated: expected bools, or 0 and 1"),
        ({"truncated": ["no"] * 8}, "truncated: expected numbers"),
        ({"rewards": REWARDS[:, None]}, r"actions, rewards: expected .* \(8,\) and \(8, 1\)"),
        ({"rewards": REWARDS * np.nan}, r"episode 0 \(steps 0 to 2\): rewards: hold NaN"),
        ({"actions": ACTIONS + 0.5}, r"episodes\[0\]: actions are not all of Discrete"),
        ({"actions": [[0], [0, 1]]}, "actions: expected one array of all steps"),
        ({"observations": FRAMES[:, None]}, "observation_space: expected a uint8 Box"),
        (
            {"observations": FRAMES[FIRST], "next_observations": FRAMES[FIRST + 1][::-1]},
            "step 0 leads elsewhere than to where step 1 begins; if an episode was cut",
        ),
        (
            {"observations": FRAMES[FIRST], "next_observations": FRAMES},
            r"next_observations: expected \(8, 2\) each, got \(8, 2\) and \(11, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "observations": FRAMES, "actions": ACTIONS, "rewards": REWARDS, "terminated": TERMINATED
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Episodes.from_arrays(**{**given, **change}, action_space=TWO)


def test_episodes_refuse_other_types_by_name() -> None:
    arrays: list[Any] = [FRAMES[:4], ACTIONS[:3], np.float32(REWARDS[:3])]
    for terminated in (TERMINATED[:3], [False, False, True], 1, None):
        with pytest.raises(TypeError, match="^terminated: expected one bool, .*from_arrays takes"):
            Episode(*arrays, terminated)  # type: ignore[arg-type]
    assert Episode(*arrays, np.bool_(True)).terminated
    for place, name in enumerate(("observations", "actions", "rewards")):
        lists = [list(one) if i == place else one for i, one in enumerate(arrays)]
        with pytest.raises(TypeError, match=f"^{name}: expected a NumPy array, got list"):
            Episode(*lists, True)
    episode, action = Episode(*arrays, True), ActionSpec.from_space(TWO)
    with pytest.raises(TypeError, match=r"^action: expected .*ActionSpec, got Discrete; .*from_sp"):
        Episodes([episode], TWO)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^episodes: expected a list .* got ndarray; Episodes"):
        Episodes(FRAMES, action)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="^observation_space: expected .* got ndarray"):
        Episodes([episode], action, FRAMES)  # type: ignore[arg-type]


class Clock(gym.Env[Any, Any]):
    """Observes the seconds since 1970, a minute more each step, and a number that hardly moves."""

    observation_space: gym.Space[Any] = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = TWO

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.look(), 0.0, False, self.time == 8, {}

    def look(self) -> Any:
        return np.array([1.7e9 + 60.0 * self.time, 1.35 + 1e-9 * self.time])


def test_changes_that_float32_loses_are_refused() -> None:
    exact = np.array([[1.7e9 + 60 * time] for time in range(9)])
    message = r"number 0 changes by 60 a step around 1.7e\+09, .* such as 1.7e\+09, in gymnasium"
    with pytest.raises(ValueError, match=message):
        collect(Clock(), 1, progress=False)
    for dtype in (np.float64, np.int64):
        with pytest.raises(ValueError, match=message):
            Episodes.from_arrays(
                exact.astype(dtype), ACTIONS, REWARDS, np.zeros(8), action_space=TWO
            )
    centred = TransformObservation(
        Clock(), lambda observation: observation - [1.7e9, 0], Clock.observation_space
    )
    (episode,) = collect(centred, 1, progress=False)
    assert np.diff(episode.observations[:, 0]).tolist() == [60.0] * 8
    assert Spec.from_spaces(centred.observation_space, TWO, 1).dtype == "float64"
