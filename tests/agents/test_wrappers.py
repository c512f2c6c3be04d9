import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv
from gymnasium.utils.env_checker import check_env

from agents.wrappers import ChunkAction, HoldAction


def test_hold_sums_rewards_and_counts_steps() -> None:
    env = HoldAction(FakeEnv(steps=12), 5)
    env.reset(seed=3)
    wanted = env.unwrapped.wanted
    _, reward, terminated, truncated, info = env.step(wanted)
    assert reward == 5.0
    assert info["steps"] == 5
    assert not (terminated or truncated)


def test_hold_stops_at_the_end() -> None:
    env = HoldAction(FakeEnv(steps=12), 5)
    env.reset(seed=0)
    lengths = [env.step(0)[4]["steps"] for _ in range(3)]
    assert lengths == [5, 5, 2]
    env = HoldAction(FakeEnv(goal=4), 5)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(2)
    assert (terminated, truncated, info["steps"]) == (True, False, 2)


def test_hold_of_one_is_the_env_itself() -> None:
    plain, held = FakeEnv(), HoldAction(FakeEnv(), 1)
    plain.reset(seed=1), held.reset(seed=1)
    for action in (0, 3, 2):
        a, b = plain.step(action), held.step(action)
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:4] == b[1:4]


def test_hold_passes_check_env() -> None:
    check_env(HoldAction(FakeEnv(), 3), skip_render_check=True)


def test_hold_is_in_the_spec() -> None:
    gym.register("agents-tests/Fake-v0", entry_point=FakeEnv)
    env = HoldAction(gym.make("agents-tests/Fake-v0"), 3)
    again = gym.make(env.spec)
    assert isinstance(again, HoldAction)
    assert again.steps == 3
    del gym.registry["agents-tests/Fake-v0"]


@pytest.mark.parametrize(("steps", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_hold_rejects(steps: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="steps"):
        HoldAction(FakeEnv(), steps)


def test_chunk_takes_one_action_after_the_other() -> None:
    env = ChunkAction(FakeEnv(goal=5), 3)
    assert env.action_space == gym.spaces.MultiDiscrete([4, 4, 4])
    env.reset(seed=0)
    shown, _, terminated, _, info = env.step(np.array([1, 0, 2]))
    assert shown[-1, -1, 0] == 30 and not terminated and info["steps"] == 3
    _, reward, terminated, _, info = env.step(np.array([2, 1, 1]))  # ends at once
    assert terminated and info["steps"] == 1 and reward in (0.0, 1.0)
    assert env.spec is None or env.spec.additional_wrappers[-1].kwargs == {"steps": 3}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (gym.spaces.Discrete(3), gym.spaces.MultiDiscrete([3, 3])),
        (gym.spaces.MultiDiscrete([[2, 3]]), gym.spaces.MultiDiscrete([2, 3, 2, 3])),
        (gym.spaces.MultiBinary(3), gym.spaces.MultiBinary(6)),
        (
            gym.spaces.Box(np.float64([[-1, 0]]), np.float64([[1, 5]]), dtype=np.float64),
            gym.spaces.Box(np.float64([-1, 0, -1, 0]), np.float64([1, 5, 1, 5]), dtype=np.float64),
        ),
    ],
)
def test_chunks_are_flat(space: gym.Space, expected: gym.Space) -> None:
    env, taken = gym.Wrapper(FakeEnv()), []
    env.action_space = space
    env.step = lambda action: (taken.append(action), 1.0, False, False, {})
    chunked = ChunkAction(env, 2)
    assert chunked.action_space == expected
    chunk = chunked.action_space.sample()
    assert chunked.step(chunk)[1] == 2
    assert all(action in space for action in taken)
    np.testing.assert_array_equal(np.concatenate([np.ravel(action) for action in taken]), chunk)


def test_chunks_need_a_choice() -> None:
    env = gym.Wrapper(FakeEnv())
    env.action_space = gym.spaces.Discrete(1)
    with pytest.raises(ValueError, match="no actions to choose"):
        ChunkAction(env, 2)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        ChunkAction(FakeEnv(), 0)
