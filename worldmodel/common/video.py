"""Video files: clips laid out side by side, and encoded as GIF or MP4.

    write_video("runs/example/futures.mp4", clips, fps=8)  # clips (N, T, H, W, C)

Clips have their channels last: `(T, H, W, C)`, or `(N, T, H, W, C)` for N clips, C 1 or 3. For
TensorBoard see `worldmodel.common.tensorboard`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldmodel.common.files import atomic, check_suffix

__all__ = ["Video", "encode_gif", "side_by_side", "tile_videos", "write_video"]

Video: TypeAlias = NDArray[Any] | torch.Tensor

_BACKGROUND = 96  # grey of separators and captions' background: visible next to black and white
_CAPTION_COLOUR = 255
_MAX_GIF_FPS = 50  # browsers slow down frames that are shorter than 2/100 s


def write_video(
    path: str | os.PathLike[str],
    video: Video,
    fps: float,
    *,
    min_height: int = 1,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> Path:
    """Write a clip, or several side by side, to a `.gif` or `.mp4` file.

    The file appears only when it is complete. A GIF keeps flat colours exactly; an MP4 (H.264) is
    lossy, and grows by one row or column (a copy of the last) where a side is odd.

    Args:
        path: where to; parent folders are created, an existing file is replaced.
        video: as in `side_by_side`.
        fps: frames per second.
        min_height: clips lower than this are enlarged by a whole factor; 1 keeps every size.
        columns: clips per row, as in `tile_videos`.
        captions: N texts, written above the clips.

    Returns:
        The path of the file.

    Raises:
        TypeError: `video` is no array or tensor, or neither uint8 nor floating point.
        ValueError: another ending, or a bad `video` or `fps` (as in `side_by_side`).
    """
    path = Path(path)
    check_suffix(path, ".gif", ".mp4")
    _check_fps(fps)
    frames = side_by_side(video, min_height, columns, captions)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as unfinished:
        if path.suffix.lower() == ".gif":
            unfinished.write_bytes(encode_gif(frames, fps))
        else:
            _write_mp4(unfinished, frames, fps)
    return path


def encode_gif(video: NDArray[np.uint8], fps: float) -> bytes:
    """Encode a clip as an endlessly looping GIF.

    Colours are exact in a clip of at most 256 colours, and in any frame of at most 256 colours.
    Other frames get the 256 colours that suit them (no dithering); a smoothly shaded scene is then
    off by about 10 of 255 at worst, several of different colours by more. A GIF counts time in
    1/100 s: frame times are rounded so that the whole clip lasts `T / fps`; above 50 fps it plays
    at 50. Equal consecutive frames become one longer frame.

    Args:
        video: `(T, H, W, 3)` uint8.
        fps: frames per second.

    Returns:
        The content of a GIF file.

    Raises:
        TypeError: `video` is not a uint8 array.
        ValueError: another shape, an empty clip, or `fps <= 0`.
    """
    if not isinstance(video, np.ndarray) or video.dtype != np.uint8:
        raise TypeError(f"video must be a uint8 numpy array, got {_kind(video)}")
    if video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape:
        raise ValueError(f"video must be (T, H, W, 3) and not empty, got {video.shape}")
    _check_fps(fps)

    ends = np.round(np.arange(len(video) + 1) * 100 / min(fps, _MAX_GIF_FPS)).astype(int)
    durations = (np.diff(ends) * 10).tolist()  # milliseconds
    first, *rest = _palette_images(video)
    file = io.BytesIO()
    first.save(
        file,
        format="GIF",
        save_all=True,
        append_images=rest,
        duration=durations,
        loop=0,
        optimize=False,
        disposal=1,
    )
    return file.getvalue()


def side_by_side(
    video: Video,
    min_height: int = 1,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Turn a clip, or several clips side by side, into one RGB clip.

    Args:
        video: `(T, H, W, C)`, or `(N, T, H, W, C)` to be tiled; C 1 or 3; uint8 in 0-255 or floats
            in 0-1. Stays unchanged.
        min_height: clips lower than this are enlarged by the smallest whole factor that suffices.
        columns: clips per row, as in `tile_videos`.
        captions: N texts, written above the clips.

    Returns:
        uint8 `(T, H', W', 3)`.

    Raises:
        TypeError: `video` is no array or tensor, or neither uint8 nor floating point.
        ValueError: shape, range, NaN, an empty clip, or `min_height < 1`.
    """
    clips = _clips(video, "video")
    if min_height < 1:
        raise ValueError(f"min_height must be at least 1, got {min_height}")
    factor = math.ceil(min_height / clips.shape[2])
    clips = clips if factor == 1 else clips.repeat(factor, axis=2).repeat(factor, axis=3)
    single = len(clips) == 1 and captions is None
    frames = clips[0] if single else tile_videos(clips, columns, 2, captions)
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def tile_videos(
    videos: Video,
    columns: int | None = None,
    gap: int = 2,
    captions: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Lay N clips out side by side.

    Args:
        videos: `(N, T, H, W, C)`, C 1 or 3; uint8 in 0-255 or floats in 0-1.
        columns: clips per row; by default one row for up to five clips, else a near-square grid.
        gap: width of the grey separators in pixels.
        captions: N texts, one above each clip; a column grows where its text is wider.

    Returns:
        uint8 `(T, H', W', C)`; cells that no clip fills are grey.

    Raises:
        TypeError: `videos` is no array or tensor, or neither uint8 nor floating point.
        ValueError: another shape, range, NaN, an empty clip, `columns < 1`, `gap < 0`, or another
            number of captions.
    """
    clips = _clips(videos, "videos", batched=True)
    n, t, height, width, channels = clips.shape
    if columns is None:
        columns = n if n <= 5 else math.ceil(math.sqrt(n))
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if gap < 0:
        raise ValueError(f"gap must not be negative, got {gap}")
    columns = min(columns, n)
    rows = math.ceil(n / columns)

    texts: list[NDArray[np.uint8]] = []
    if captions is not None:
        if isinstance(captions, str) or len(captions) != n:
            raise ValueError(f"captions must be {n} texts, one per clip, got {captions!r}")
        texts = [_caption(text) for text in captions]
    head = max((text.shape[0] for text in texts), default=0)
    cells = [width] * columns
    for i, text in enumerate(texts):
        cells[i % columns] = max(cells[i % columns], text.shape[1])

    shape = (t, rows * (head + height + gap) - gap, sum(cells) + gap * (columns - 1), channels)
    canvas = np.full(shape, _BACKGROUND, dtype=np.uint8)
    for i, clip in enumerate(clips):
        row, column = divmod(i, columns)
        top = row * (head + height + gap)
        left = sum(cells[:column]) + gap * column
        if texts:
            text = texts[i]
            x = left + (cells[column] - text.shape[1]) // 2
            canvas[:, top : top + text.shape[0], x : x + text.shape[1]] = text[None, :, :, None]
        x = left + (cells[column] - width) // 2
        canvas[:, top + head : top + head + height, x : x + width] = clip
    return canvas


def _clips(video: object, name: str, batched: bool = False) -> NDArray[np.uint8]:
    """Check a clip or a batch of clips; return uint8 `(N, T, H, W, C)`."""
    if isinstance(video, torch.Tensor):
        tensor = video.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif isinstance(video, np.ndarray):
        array = video
    else:
        raise TypeError(f"{name} must be a numpy array or a torch tensor, got {_kind(video)}")
    is_float = np.issubdtype(array.dtype, np.floating)
    if array.dtype != np.uint8 and not is_float:
        raise TypeError(f"{name} must be uint8 in 0-255 or floats in 0-1, got {_kind(video)}")

    expected = "(N, T, H, W, C)" if batched else "(T, H, W, C) or (N, T, H, W, C)"
    if array.ndim != 5 and (batched or array.ndim != 4):
        raise ValueError(f"{name} must be {expected}, got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    if array.shape[-1] not in (1, 3):
        hint = ""
        if array.shape[-3] in (1, 3):
            axes = ", ".join(map(str, [*range(array.ndim - 3), array.ndim - 2, array.ndim - 1]))
            axes += f", {array.ndim - 3}"
            call = "permute" if isinstance(video, torch.Tensor) else "transpose"
            hint = f"; the channels seem to come first: {name}.{call}({axes}) moves them"
        raise ValueError(f"{name} must be {expected} with C 1 or 3, got shape {array.shape}{hint}")
    if array.ndim == 4:
        array = array[None]
    if is_float:
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} holds NaN or infinite values; floats must lie in 0-1")
        if low < -1e-4 or high > 1 + 1e-4:
            raise ValueError(
                f"{name} holds floats from {low:g} to {high:g}; they must lie in 0-1 (clip them,"
                " or pass 0-255 as uint8)"
            )
        array = np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)
    return array


def _caption(text: str) -> NDArray[np.uint8]:
    """Draw a text; returns its grey values `(h, w)`, where h depends on the font only."""
    font = ImageFont.load_default(size=14)
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Ag|")
    size = (max(1, math.ceil(right - left)) + 4, math.ceil(bottom - top) + 4)
    image = Image.new("L", size, _BACKGROUND)
    ImageDraw.Draw(image).text((2 - left, 2 - top), text, fill=_CAPTION_COLOUR, font=font)
    return _few_greys(np.asarray(image))


def _few_greys(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep six levels of the text's edges: a GIF's 256 colours are the clip's."""
    span = _CAPTION_COLOUR - _BACKGROUND
    level = np.round((grey.astype(np.float32) - _BACKGROUND) / span * 5)
    return np.round(_BACKGROUND + level * span / 5).astype(np.uint8)


def _palette_images(video: NDArray[np.uint8]) -> list[Image.Image]:
    """Turn `(T, H, W, 3)` into palette images: one palette for the clip if 256 colours suffice."""
    colours = video.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)  # (T, H, W)
    present = np.zeros(1 << 24, dtype=bool)
    present[colours.ravel()] = True
    palette = np.flatnonzero(present)
    if len(palette) <= 256:
        index = np.zeros(1 << 24, dtype=np.uint8)
        index[palette] = np.arange(len(palette))
        return [_palette_image(frame, palette) for frame in index[colours]]
    return [_quantised_image(frame) for frame in colours]


def _quantised_image(colours: NDArray[np.int32]) -> Image.Image:
    """Turn one frame of 0xRRGGBB `(H, W)` into a palette image; exact up to 256 colours."""
    palette, inverse = np.unique(colours, return_inverse=True)
    index = inverse.reshape(colours.shape)
    if len(palette) > 256:
        # Only the distinct colours are quantised, so that rare ones count and enlarging costs
        # nothing. Maximum coverage has a third of median cut's largest error.
        few = Image.fromarray(_rgb(palette)[None]).quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        index = np.asarray(few)[0][index]
        chosen = np.array(few.getpalette(), dtype=np.int32).reshape(-1, 3)
        palette = (chosen << np.array([16, 8, 0], dtype=np.int32)).sum(axis=1, dtype=np.int32)
    return _palette_image(index.astype(np.uint8), palette)


def _rgb(colours: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Unpack 0xRRGGBB `(n,)` to `(n, 3)`."""
    return np.stack([colours >> 16, colours >> 8, colours], axis=-1).astype(np.uint8)


def _palette_image(index: NDArray[np.uint8], palette: NDArray[np.integer[Any]]) -> Image.Image:
    image = Image.fromarray(index)
    image.putpalette(_rgb(palette).tobytes())  # turns grey values into indices
    return image


def _write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    # moviepy's ImageSequenceClip samples the frames at rounded times and so repeats some and drops
    # others (21 frames at 7 fps become 20); its writer takes each frame once.
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    _, height, width, _ = frames.shape
    with FFMPEG_VideoWriter(
        str(path), (width, height), fps, codec="libx264", ffmpeg_params=["-crf", "18"]
    ) as writer:
        process = writer.proc
        for frame in frames:
            writer.write_frame(frame)
    if process.returncode != 0:
        raise OSError(f"ffmpeg could not write {path} (exit status {process.returncode})")


def _check_fps(fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number of frames per second, got {fps}")


def _kind(value: object) -> str:
    """Name a value's type for an error message."""
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array"
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor"
    return type(value).__name__
