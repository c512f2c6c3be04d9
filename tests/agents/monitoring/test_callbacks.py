"""What SB3 callbacks log."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel, frames
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import RandomAgent
from agents.evaluation import evaluate
from agents.monitoring.callbacks import AgentVideo, ImaginationVideo, ModelError, RealReturns
from agents.monitoring.comparison import compare
from agents.monitoring.model_error import imagination_error
from agents.training.imagined_ppo import train_in_imagination

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
        model, STARTS, 64, 4, hold=3, frame_stack=4, callback=callback,
        tensorboard_log=str(tmp_path), **SMALL,
    )  # fmt: skip
    events = logged(tmp_path)
    images = events.Images("videos/real_imagined_difference")
    assert [image.step for image in images] == [0, 32, 64]
    assert images[0].encoded_image_string[:6] == b"GIF89a"
    assert images[0].width >= 3 * 128 and images[0].height >= 3 * 128
    assert "rollout/ep_rew_mean" in events.Tags()["scalars"]


def test_callback_warns_without_tensorboard() -> None:
    callback = ImaginationVideo(FakeEnv(), FakeModel(), hold=3)
    with pytest.warns(UserWarning, match="tensorboard_log"):
        train_in_imagination(
            FakeModel(), STARTS, 16, 4, hold=3, frame_stack=4, callback=callback, **SMALL
        )


def test_callback_rejects() -> None:
    with pytest.raises(ValueError, match="every"):
        ImaginationVideo(FakeEnv(), FakeModel(), every=0)
    with pytest.raises(ValueError, match="play"):
        ImaginationVideo(FakeEnv(), FakeModel(), play="best")


def test_real_returns_are_logged_and_kept(tmp_path: Path) -> None:
    settings = {"hold": 3, "frame_stack": 2}
    callback = RealReturns(FakeEnv, every=32, episodes=3, seed=5, **settings)
    agent = train_in_imagination(
        FakeModel(), STARTS, 64, 4, hold=3, frame_stack=2, callback=callback,
        tensorboard_log=str(tmp_path), **SMALL,
    )  # fmt: skip
    assert [steps for steps, _ in callback.history] == [0, 32, 64]
    last = evaluate(agent, FakeEnv, 3, seed=5, **settings)
    np.testing.assert_array_equal(callback.history[-1][1], last)
    scalars = logged(tmp_path).Scalars("real/return")
    assert [event.step for event in scalars] == [0, 32, 64]
    assert [event.value for event in scalars] == [
        pytest.approx(returns.mean()) for _, returns in callback.history
    ]


class Off(FakeModel):
    """Says 0.1 more of each pixel, and half of each reward."""

    def predict(self, *arguments):
        seen = super().predict(*arguments)
        return type(seen)(seen.observations + 0.1, seen.rewards / 2, seen.alive)


def test_model_error_is_that_of_one_imagined_episode(tmp_path: Path) -> None:
    env = FakeEnv(steps=8, goal=9)
    agent = RandomAgent(env.action_space)
    found = imagination_error(FakeModel(goal=9), env, agent, seed=1)
    assert found.mse < 1e-9 and found.reward_error < 1e-5
    assert found.frame_calibration == found.reward_calibration == pytest.approx(0.9)  # all tie
    assert found.spread == 1
    random = RandomAgent(env.action_space)
    found = imagination_error(Off(), env, random, seed=1)
    assert found.mse == pytest.approx(0.01, rel=1e-3)
    assert found.frame_calibration == 0  # sure, and wrong
    assert found.spread == 0
    callback = ModelError(FakeEnv(steps=8), Off(), every=16, episodes=2, hold=4, frame_stack=2)
    train_in_imagination(
        FakeModel(), STARTS, 32, 4, hold=4, horizon=2, frame_stack=2, callback=callback,
        tensorboard_log=str(tmp_path), **SMALL,
    )  # fmt: skip
    events = logged(tmp_path)
    assert [event.value for event in events.Scalars("model/mse")] == pytest.approx([0.01] * 3)
    assert [e.value for e in events.Scalars("model/frame_calibration")] == [0] * 3
    assert events.Scalars("model/calibration_ideal")[0].value == pytest.approx(0.9)
    assert "how_to_read/model/text_summary" in events.Tags()["tensors"]
    for event in events.Scalars("model/reward_error"):
        assert event.value in range(5)  # half of what wanted actions pay, 0, 4 or 8 an episode


@pytest.mark.parametrize("name", ["every", "episodes", "hold", "frame_stack"])
def test_numbers_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ModelError(FakeEnv(), FakeModel(), **{name: 0})
    if name in ("every", "episodes"):
        with pytest.raises(ValueError, match=name):
            RealReturns(FakeEnv, **{name: 0})
    else:
        with pytest.raises(ValueError, match=name):
            AgentVideo(FakeEnv(), **{name: 0})


def test_too_few_worlds() -> None:
    with pytest.raises(ValueError, match="worlds: expected at least 2, got 1"):
        ModelError(FakeEnv(), FakeModel(), worlds=1)
    with pytest.raises(ValueError, match="worlds"):
        ImaginationVideo(FakeEnv(), FakeModel(), worlds=0)


def test_rows_are_real_imagined_and_difference() -> None:
    found = compare(Off(), FakeEnv(steps=6), RandomAgent(FakeEnv().action_space), 1, worlds=2)
    clips, captions = found.clips()
    assert clips.shape == (6, 7, 32, 32, 3) and clips.dtype == np.uint8
    np.testing.assert_array_equal(clips[0], clips[1])
    assert (clips[2:4, 0] == clips[:2, 0]).all() and (clips[4:, 0] == 0).all()  # what was shown
    assert (np.abs(clips[4:, 1:].astype(int) - 25.5) <= 1).all()  # a tenth too bright
    np.testing.assert_allclose(found.imagined_returns, found.real_return / 2, atol=1e-5)
    assert captions[0] == captions[1] == f"real: reward {found.real_return:.3g}"
    assert captions[2].startswith("imagined 1: ") and captions[5] == "difference 2"


@pytest.mark.parametrize("steps", [6, 400])
def test_the_agent_is_filmed(tmp_path: Path, steps: int) -> None:
    callback = AgentVideo(FakeEnv(), every=32, hold=3, steps=steps)
    clips, columns, captions = filmed(callback, tmp_path)
    taken = min(steps, 12)
    assert clips.shape == (1, taken + 1, 32, 32, 3) and columns == 1
    assert captions[0].endswith(f"after {taken} steps" + (", not over yet" if steps < 12 else ""))
    images = logged(tmp_path).Images("videos/agent_at_play")
    assert [image.step for image in images] == [0, 32, 64]


def filmed(callback: AgentVideo, folder: Path) -> tuple[np.ndarray, int, list[str]]:
    train_in_imagination(
        FakeModel(), STARTS, 64, 4, hold=3, frame_stack=1, callback=callback,
        tensorboard_log=str(folder), **SMALL,
    )  # fmt: skip
    return callback._clips()


def test_rendered_frames_are_filmed_where_there_are_some() -> None:
    env = gym.wrappers.FlattenObservation(FakeEnv())
    with pytest.raises(ValueError, match="env: its observations are no pictures"):
        AgentVideo(env)
    env = gym.wrappers.FlattenObservation(FakeEnv(steps=5, render_mode="rgb_array"))
    callback = AgentVideo(env)
    callback.model = RandomAgent(env.action_space)  # type: ignore[assignment]
    (clip,), _, _ = callback._clips()
    assert clip.shape == (6, 32, 32, 3) and (clip[1:, -1, -1] >= clip[:-1, -1, -1]).all()
