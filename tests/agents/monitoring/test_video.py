"""``logger.Video`` of a real SB3 algorithm shows, where it is asked to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import (
    HumanOutputFormat,
    Logger,
    TensorBoardOutputFormat,
    Video,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import agents
import worldmodel.common.tensorboard
import worldmodel.common.video
from agents.monitoring.video import LoggerVideos, VideoOutputFormat

FRAMES = torch.zeros(1, 5, 3, 128, 128, dtype=torch.uint8)
for _time in range(5):
    FRAMES[0, _time, _time % 3, :, 20 * _time : 20 * _time + 20] = 250
ONLY = ("stdout", "log", "json", "csv")


class Films(BaseCallback):
    """Logs a video as SB3's documentation says."""

    def __init__(self, frames: Any) -> None:
        super().__init__()
        self.frames = frames

    def _on_step(self) -> bool:
        self.logger.record("film", Video(self.frames, fps=8), exclude=ONLY)
        return True


def learn(*callbacks: BaseCallback, logger: Logger | None = None, log: Path | None = None) -> PPO:
    agent = PPO(
        "MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, n_epochs=1, device="cpu",
        tensorboard_log=None if log is None else str(log),
    )  # fmt: skip
    if logger is not None:
        agent.set_logger(logger)
    return agent.learn(8, callback=list(callbacks))


def check(folder: Path) -> None:
    """The film is there with all its frames, and so are the scalars."""
    events = EventAccumulator(str(folder)).Reload()
    (event,) = events.Images("film")
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        assert image.format == "GIF" and image.n_frames == 5
        for time in range(5):
            image.seek(time)
            expected = FRAMES[0, time].movedim(0, -1).numpy()
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)
    assert "time/fps" in events.Tags()["scalars"]


def test_there_is_one_add_video() -> None:
    assert agents.add_video is worldmodel.common.tensorboard.add_video
    for name in ("tile_videos", "write_video"):
        assert getattr(agents, name) is getattr(worldmodel.common.video, name)


@pytest.mark.parametrize("frames", [FRAMES, FRAMES / 255, FRAMES.numpy()])
def test_a_callback_makes_videos_show(tmp_path: Path, frames: Any) -> None:
    agent = learn(LoggerVideos(), Films(frames), log=tmp_path)
    (run,) = tmp_path.iterdir()
    assert len(list(run.iterdir())) == 1  # no second event file
    check(run)
    assert [type(output) for output in agent.logger.output_formats] == [TensorBoardOutputFormat]


def test_a_logger_shows_videos(tmp_path: Path) -> None:
    learn(Films(FRAMES), logger=Logger(str(tmp_path), [VideoOutputFormat(str(tmp_path))]))
    check(tmp_path)


def test_what_is_excluded_stays_away(tmp_path: Path) -> None:
    output = VideoOutputFormat(str(tmp_path))
    logger = Logger(str(tmp_path), [output])
    logger.record("film", Video(FRAMES, 8), exclude="tensorboard")
    logger.record("number", 3.0)
    logger.dump(1)
    output.close()
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == []


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"film: frames of a Video must be \(N, T, C, H, W\)"):
        learn(LoggerVideos(), Films(FRAMES[0]), log=tmp_path)
    with pytest.raises(ValueError, match="LoggerVideos: the logger has no TensorBoard output"):
        learn(LoggerVideos(), logger=Logger(None, [HumanOutputFormat(str(tmp_path / "a.txt"))]))
