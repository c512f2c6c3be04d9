"""What SB3 callbacks log."""

from pathlib import Path

import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel, frames
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.beside import imagination_error
from agents.callbacks import ImaginationVideo, ModelError, RealReturns
from agents.planners import RandomAgent
from agents.train import evaluate, train_in_imagination

STARTS = frames(0, 1, 2, 3)
SMALL = {"n_steps": 4, "batch_size": 16, "n_epochs": 1}


def logged(folder: Path) -> EventAccumulator:
    (run,) = folder.iterdir()
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("play", ["policy", "random"])
def test_callback_logs_clips(tmp_path: Path, play: str) -> None:
    model = FakeModel()
    callback = ImaginationVideo(FakeEnv(), model, every=32, hold=3, play=play)
    train_in_imagination(
        model, STARTS, 64, 4, jump=3, callback=callback, tensorboard_log=str(tmp_path), **SMALL
    )
    events = logged(tmp_path)
    images = events.Images("imagination/real_imagined")
    assert [image.step for image in images] == [4, 36]
    assert images[0].encoded_image_string[:6] == b"GIF89a"
    assert "rollout/ep_rew_mean" in events.Tags()["scalars"]


def test_callback_warns_without_tensorboard() -> None:
    callback = ImaginationVideo(FakeEnv(), FakeModel(), hold=3)
    with pytest.warns(UserWarning, match="tensorboard_log"):
        train_in_imagination(FakeModel(), STARTS, 16, 4, jump=3, callback=callback, **SMALL)


def test_callback_rejects() -> None:
    with pytest.raises(ValueError, match="every"):
        ImaginationVideo(FakeEnv(), FakeModel(), every=0)
    with pytest.raises(ValueError, match="play"):
        ImaginationVideo(FakeEnv(), FakeModel(), play="best")


def test_real_returns_are_logged_and_kept(tmp_path: Path) -> None:
    settings = {"hold": 3, "frame_stack": 2}
    callback = RealReturns(FakeEnv, every=32, episodes=3, seed=5, **settings)
    agent = train_in_imagination(
        FakeModel(), STARTS, 64, 4, jump=3, frame_stack=2, callback=callback,
        tensorboard_log=str(tmp_path), **SMALL,
    )  # fmt: skip
    assert [steps for steps, _ in callback.history] == [0, 32, 64]
    last = evaluate(agent, FakeEnv, 3, seed=5, **settings)
    np.testing.assert_array_equal(callback.history[-1][1], last)
    scalars = logged(tmp_path).Scalars("real/return")
    assert [event.value for event in scalars] == [
        pytest.approx(returns.mean()) for _, returns in callback.history
    ]


class Off(FakeModel):
    """Says 0.1 more of each pixel, and half of each reward."""

    def _predict(self, *arguments):
        seen = super()._predict(*arguments)
        return type(seen)(seen.observations + 0.1, seen.rewards / 2, seen.alive)


def test_model_error_is_that_of_one_imagined_episode(tmp_path: Path) -> None:
    env = FakeEnv(steps=8, goal=9)
    agent = RandomAgent(env.action_space)
    mse, reward = imagination_error(FakeModel(goal=9), env, agent, seed=1)
    assert mse < 1e-9 and reward < 1e-5
    random = RandomAgent(env.action_space)
    mse, _ = imagination_error(Off(), env, random, seed=1)
    assert mse == pytest.approx(0.01, rel=1e-3)
    callback = ModelError(FakeEnv(steps=8), Off(), every=16, episodes=2, hold=4, frame_stack=2)
    train_in_imagination(
        FakeModel(), STARTS, 32, 4, jump=4, horizon=2, frame_stack=2, callback=callback,
        tensorboard_log=str(tmp_path), **SMALL,
    )  # fmt: skip
    events = logged(tmp_path)
    assert [event.value for event in events.Scalars("model/mse")] == pytest.approx([0.01, 0.01])
    for event in events.Scalars("model/reward_error"):
        assert event.value in range(5)  # half of what wanted actions pay, 0, 4 or 8 an episode


@pytest.mark.parametrize("name", ["every", "episodes", "hold", "frame_stack"])
def test_numbers_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ModelError(FakeEnv(), FakeModel(), **{name: 0})
    if name in ("every", "episodes"):
        with pytest.raises(ValueError, match=name):
            RealReturns(FakeEnv, **{name: 0})
