"""Pictures of the environments: videos of random play, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.common.progress import progress
from worldmodel.common.video import tile_videos

Frames = NDArray[np.uint8]

_MARGIN: Final = 4  # pixels


def random_videos(
    env_id: str, *, episodes: int, seed: int, hold: int | None = None, **settings: Any
) -> list[Frames]:
    """Videos of random play, one for each episode: uint8 ``(frames, H, W, 3)``.

    Args:
        env_id: id of the environment.
        episodes: how many, at least 1.
        seed: of scenes and actions.
        hold: steps for which a random action is held; None for the simulator's own.
        settings: of the environment.

    Raises:
        ValueError: ``episodes`` or ``hold`` is below 1.
    """
    if episodes < 1 or (hold is not None and hold < 1):
        raise ValueError(f"episodes and hold must be at least 1, got {episodes} and {hold}")
    env = gym.make(env_id, render_mode="rgb_array", **settings)
    hold = hold or int(getattr(getattr(env.unwrapped, "simulator", None), "hold", 1))
    env.action_space.seed(seed)
    videos = []
    for episode in progress(range(episodes), "play", "episode", show=episodes > 1):
        env.reset(seed=seed if episode == 0 else None)
        frames: list[Any] = [env.render()]
        over, action = False, None
        while not over:
            if (len(frames) - 1) % hold == 0:
                action = env.action_space.sample()
            _, _, terminated, truncated, _ = env.step(deepcopy(action))
            frames.append(env.render())
            over = terminated or truncated
        videos.append(np.stack(frames))
    env.close()
    return videos


def videos_of_all(env_ids: Sequence[str], side: int, seed: int) -> dict[str, Frames]:
    """Random play of each environment at its own size, each pixel repeated up to ``side``.

    Args:
        env_ids: which environments.
        side: height and width in pixels, a multiple of 64.
        seed: of scenes and actions.

    Returns:
        uint8 ``(frames, side, side, 3)`` by name, without namespace and version.
    """
    if side < 64 or side % 64:
        raise ValueError(f"side must be a multiple of 64, got {side}")
    videos = {}
    for env_id in progress(env_ids, "play", "env"):
        frames = random_videos(env_id, episodes=1, seed=seed)[0]
        times = side // frames.shape[1]
        name = env_id.split("/")[-1].removesuffix("-v0")
        videos[name] = frames.repeat(times, axis=1).repeat(times, axis=2)
    return videos


def contact_sheet(videos: dict[str, Frames], columns: int = 8) -> Frames:
    """One row for each video: ``columns`` frames spread over it, below its name.

    Args:
        videos: uint8 ``(frames, S, S, 3)`` by name, all of one S.
        columns: frames in a row, at least 2.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    rows = [np.linspace(0, len(v) - 1, columns).round().astype(int) for v in videos.values()]
    stills = [frames[times] for frames, times in zip(videos.values(), rows, strict=True)]
    names = [text for name in videos for text in (name, *[""] * (columns - 1))]
    sheet: Frames = tile_videos(np.concatenate(stills)[:, None], columns, _MARGIN, names)[0]
    return sheet


def mosaic(videos: dict[str, Frames], length: int, columns: int = 4) -> Frames:
    """All videos side by side, each below its name, repeated until ``length`` frames.

    Args:
        videos: uint8 ``(frames, S, S, 3)`` by name, all of one S.
        length: frames of the mosaic.
        columns: videos in a row.

    Returns:
        uint8 ``(length, H, W, 3)``.
    """
    clips = [frames[np.arange(length) % len(frames)] for frames in videos.values()]
    return tile_videos(np.stack(clips), columns, _MARGIN, list(videos))
