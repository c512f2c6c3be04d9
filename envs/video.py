"""Pictures of the environments for people: films of random play, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

Film = NDArray[np.uint8]

_MARGIN: Final = 4
_GROUND: Final = (250, 250, 250)
_INK: Final = (30, 30, 30)


def film(
    env_id: str, *, episodes: int, seed: int, hold: int | None = None, **settings: Any
) -> list[Film]:
    """Films of random play, one for each episode: uint8 ``(frames, H, W, 3)``.

    Args:
        env_id: id of the environment.
        episodes: how many, at least 1.
        seed: of scenes and actions.
        hold: steps for which a random action is kept; None for what the simulator suggests.
        settings: of the environment.

    Raises:
        ValueError: ``episodes`` or ``hold`` is below 1.
    """
    if episodes < 1 or (hold is not None and hold < 1):
        raise ValueError(f"episodes and hold must be at least 1, got {episodes} and {hold}")
    env = gym.make(env_id, render_mode="rgb_array", **settings)
    keep = hold or int(getattr(getattr(env.unwrapped, "simulator", None), "hold", 1))
    env.action_space.seed(seed)
    films = []
    for episode in tqdm(range(episodes), unit="episode", disable=episodes == 1):
        env.reset(seed=seed if episode == 0 else None)
        frames: list[Any] = [env.render()]
        over, step, action = False, 0, None
        while not over:
            if step % keep == 0:
                action = env.action_space.sample()
            _, _, terminated, truncated, _ = env.step(action)
            frames.append(env.render())
            over, step = terminated or truncated, step + 1
        films.append(np.stack(frames))
    env.close()
    return films


def write_film(out: Path, frames: Film, fps: int) -> None:
    """Encode uint8 ``(frames, H, W, 3)`` as .gif or .mp4.

    Raises:
        ValueError: ``out`` ends otherwise.
    """
    check_suffix(out, ".mp4", ".gif")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".gif":  # Pillow keeps every frame; moviepy's encoder drops some
        first, *rest = [Image.fromarray(frame) for frame in frames]
        first.save(out, save_all=True, append_images=rest, duration=1000 // fps, loop=0)
        return
    # moviepy's clips sample frames at rounded times; its writer takes each frame once.
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    _, height, width, _ = frames.shape  # the codec wants even sides
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with FFMPEG_VideoWriter(str(out), frames.shape[2:0:-1], fps, codec="libx264") as writer:
        for frame in frames:
            writer.write_frame(frame)


def check_suffix(out: Path, *suffixes: str) -> None:
    """Raise ValueError unless ``out`` ends in one of ``suffixes``."""
    if out.suffix not in suffixes:
        raise ValueError(f"out must end in {' or '.join(suffixes)}, got {out}")


def contact_sheet(films: dict[str, Film], columns: int = 8) -> Film:
    """One row for each film: its name, and ``columns`` frames spread over it.

    Args:
        films: uint8 ``(frames, S, S, 3)`` by name, all of one S.
        columns: frames in a row, at least 2.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    side = next(iter(films.values())).shape[1]
    names = 2 * side
    size = _font_size(films, names - 2 * _MARGIN)
    sheet = _blank(len(films) * (side + _MARGIN), names + columns * (side + _MARGIN))
    for row, (name, frames) in enumerate(films.items()):
        top = row * (side + _MARGIN)
        _write(sheet, name, (_MARGIN, top + side // 2), size)
        for column, at in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
            left = names + column * (side + _MARGIN)
            sheet.paste(Image.fromarray(frames[at]), (left, top))
    return np.asarray(sheet)


def mosaic(films: dict[str, Film], length: int, columns: int = 4) -> Film:
    """All films side by side, each below its name, repeated until ``length`` frames.

    Args:
        films: uint8 ``(frames, S, S, 3)`` by name, all of one S.
        length: frames of the mosaic.
        columns: films in a row.

    Returns:
        uint8 ``(length, H, W, 3)``.
    """
    side = next(iter(films.values())).shape[1]
    title, size = 16, _font_size(films, side)
    height = -(-len(films) // columns) * (side + title + _MARGIN)
    ground = _blank(height, columns * (side + _MARGIN))
    corners = []
    for place, name in enumerate(films):
        top, left = divmod(place, columns)
        top, left = top * (side + title + _MARGIN), left * (side + _MARGIN)
        _write(ground, name, (left, top + title // 2), size)
        corners.append((top + title, left))
    canvas = np.repeat(np.asarray(ground)[None], length, axis=0)
    for (top, left), frames in zip(corners, films.values(), strict=True):
        shown = frames[np.arange(length) % len(frames)]
        canvas[:, top : top + side, left : left + side] = shown
    return canvas


def everything(env_ids: Sequence[str], side: int, seed: int) -> dict[str, Film]:
    """Random play of each environment at its own size, each pixel repeated up to ``side``.

    Args:
        env_ids: which environments.
        side: height and width in pixels, a multiple of 64.
        seed: of scenes and actions.

    Returns:
        uint8 ``(frames, side, side, 3)`` by name, namespace and version left away.
    """
    if side < 64 or side % 64:
        raise ValueError(f"side must be a multiple of 64, got {side}")
    films = {}
    for env_id in tqdm(env_ids, unit="env"):
        frames = film(env_id, episodes=1, seed=seed)[0]
        times = side // frames.shape[1]
        name = env_id.split("/")[-1].removesuffix("-v0")
        films[name] = frames.repeat(times, axis=1).repeat(times, axis=2)
    return films


def _blank(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), _GROUND)


def _write(sheet: Image.Image, text: str, at: tuple[int, int], size: float) -> None:
    """Write ``text`` from ``at``: left end, middle."""
    draw = ImageDraw.Draw(sheet)
    draw.text(at, text, fill=_INK, font=ImageFont.load_default(size), anchor="lm")


def _font_size(texts: Iterable[str], width: int) -> float:
    """The largest size up to 13 in which all fit ``width`` pixels."""
    longest = max(ImageFont.load_default(13).getlength(text) for text in texts)
    return min(13, 13 * width / longest)
