"""``logger.Video`` of Stable-Baselines3 in TensorBoard.

SB3's ``TensorBoardOutputFormat`` hands a ``Video`` to a function of torch that loses it with
moviepy 2, without an error. There are two remedies, both for one logger only:

    agent.learn(10_000, callback=[mine, LoggerVideos()])  # with tensorboard_log="runs"
    agent.set_logger(Logger("runs/mine", [VideoOutputFormat("runs/mine")]))

and then, as SB3 documents it:

    logger.record("video", Video(frames, fps=8), exclude=("stdout", "log", "json", "csv"))
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat, Video

from worldmodel.common.tensorboard import add_video


class VideoOutputFormat(TensorBoardOutputFormat):
    """SB3's TensorBoard output, in which ``logger.Video`` is shown.

    Frames are SB3's (N, T, C, H, W): N clips side by side, C 1 or 3, uint8 in 0-255 or floats in
    0-1. Low clips are enlarged to 128 rows, as by ``add_video``.

    Args:
        folder: of the log; it is made if missing.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder)

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Write what was recorded, as SB3's loggers do.

        Raises:
            TypeError: frames of a video are not an array or tensor of uint8 or floats.
            ValueError: frames of a video have another shape or range.
        """
        videos = {key: value for key, value in key_values.items() if isinstance(value, Video)}
        for key, video in sorted(videos.items()):
            if "tensorboard" not in (key_excluded[key] or ()):
                add_video(self.writer, key, _channels_last(key, video), step, video.fps)
        rest = {key: value for key, value in key_values.items() if key not in videos}
        super().write(rest, {key: key_excluded[key] for key in rest}, step)


class LoggerVideos(BaseCallback):
    """Shows ``logger.Video`` in the TensorBoard of ``tensorboard_log``, while ``learn`` runs.

    It replaces the TensorBoard output of the algorithm's own logger by a ``VideoOutputFormat`` that
    writes to the same file, and restores it in the end. Place it before callbacks that log videos
    when training starts.

    Raises:
        ValueError: when training starts without TensorBoard.
    """

    _logger: Logger
    _before: list[Any]

    def _on_training_start(self) -> None:
        self._logger, self._before = self.logger, list(self.logger.output_formats)
        outputs = [_with_videos(output) for output in self._before]
        if not any(isinstance(output, VideoOutputFormat) for output in outputs):
            raise ValueError(
                "LoggerVideos: the logger has no TensorBoard output; give the algorithm "
                "tensorboard_log='runs'"
            )
        self._logger.output_formats = outputs

    def _on_training_end(self) -> None:
        self._logger.output_formats = self._before

    def _on_step(self) -> bool:
        return True


def _with_videos(output: Any) -> Any:
    """The output; for TensorBoard's, one that shows videos and shares its writer."""
    if type(output) is not TensorBoardOutputFormat:
        return output
    shared = VideoOutputFormat.__new__(VideoOutputFormat)  # without a second event file
    shared.__dict__ = output.__dict__
    return shared


def _channels_last(key: str, video: Video) -> Any:
    frames = video.frames
    array = frames if isinstance(frames, torch.Tensor) else torch.as_tensor(frames)
    if array.ndim != 5 or array.shape[2] not in (1, 3):
        raise ValueError(
            f"{key}: frames of a Video must be (N, T, C, H, W) with C 1 or 3, got shape "
            f"{tuple(array.shape)}"
        )
    return array.movedim(2, -1)
