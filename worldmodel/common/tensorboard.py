"""A TensorBoard `add_video` that works with moviepy 2.

`torch.utils.tensorboard.SummaryWriter.add_video` imports a module that moviepy 2 removed; it prints
a line and writes a summary without an image. Here the clip is encoded with Pillow and written as an
image summary, which TensorBoard plays as an animation.

    writer = SummaryWriter("runs/example")
    add_video(writer, "futures", clips, step=100)  # clips (N, T, H, W, C), side by side

TensorBoard keeps 10 images per tag; `--samples_per_plugin images=100` shows more of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worldmodel.common.video import Video, encode_gif, side_by_side

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def add_video(
    writer: SummaryWriter,
    tag: str,
    video: Video,
    step: int,
    fps: float = 8,
    *,
    min_height: int = 128,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Write a clip, or several side by side, to TensorBoard's *Images* tab.

    Args:
        writer: an open `SummaryWriter`.
        tag: name of the clip in TensorBoard.
        video: as in `worldmodel.common.video.side_by_side`.
        step: training step that the clip belongs to.
        fps: frames per second.
        min_height: clips lower than this are enlarged by a whole factor, so that a person can see
            32-pixel frames; 1 keeps every size.
        columns: clips per row, as in `tile_videos`.
        captions: N texts, written above the clips.

    Raises:
        TypeError: `video` is no array or tensor, or neither uint8 nor floating point.
        ValueError: shape, range, NaN, an empty clip, `fps <= 0`, or a closed writer.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    file_writer = writer.file_writer
    if file_writer is None:
        raise ValueError("writer is closed; write the video before writer.close()")
    frames = side_by_side(video, min_height, columns, captions)  # (T, H', W', 3)
    gif = encode_gif(frames, fps)
    _, height, width, _ = frames.shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
    file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
