import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel, Scripted

from agents.monitoring.comparison import compare


@pytest.mark.parametrize("hold", [1, 5])
def test_side_by_side_agree_for_a_perfect_model(hold: int) -> None:
    model = FakeModel().train()
    video = compare(model, FakeEnv(steps=12), None, seed=1, hold=hold, worlds=1).side_by_side()
    assert video.shape == (13, 32, 66, 3)
    assert video.dtype == np.uint8
    bright = np.minimum(video[..., :32, :], 250)
    np.testing.assert_array_equal(bright, np.minimum(video[..., 34:, :], 250))
    assert model.training


def test_side_by_side_shows_what_a_stride_reaches() -> None:
    model, every = (
        FakeModel(),
        compare(FakeModel(), FakeEnv(steps=12), seed=1, worlds=1).side_by_side(),
    )
    model.stride = 5
    assert np.array_equal(
        compare(model, FakeEnv(steps=12), seed=1, worlds=1).side_by_side(), every[::5]
    )


def test_side_by_side_stops_at_the_window() -> None:
    assert len(compare(FakeModel(), FakeEnv(steps=100), Scripted(0), worlds=1).side_by_side()) == 13


def test_side_by_side_rejects_other_spaces() -> None:
    env = gym.wrappers.TransformObservation(
        FakeEnv(), lambda x: x[:16], gym.spaces.Box(0, 255, (16, 32, 3), np.uint8)
    )
    with pytest.raises(ValueError, match="env: observation space"):
        compare(FakeModel(), env, worlds=1).side_by_side()
