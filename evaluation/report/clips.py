"""Clips of released models and of environments, as the gallery shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from envs import SceneBatch
from envs.video import random_videos
from evaluation.metrics.dice_consistency import CONTEXT_VIEWS
from evaluation.runner.held_out_scenes import VIEWS, held_out
from worldmodel import WorldModel, to_float, to_uint8
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.common.video import tile_videos
from worldmodel.imagine import framed, imagine
from worldmodel.models.jumpy.inferno import Inferno

PASSIVE_CONTEXT = 6
"""Frames that a model of a passive scene is given: those of the paper, up to the first leg's end.
With actions, the first frame alone."""
LAST = 20
"""Latest time in a clip, in steps."""
CANDIDATES = 32
"""Test scenes of which the longest are taken: those that end at once have nothing to show."""
OBJECT_COLOURS = (
    (0, 0, 0), (230, 75, 53), (77, 187, 213), (0, 160, 135), (243, 155, 127), (145, 209, 194),
    (132, 145, 180), (220, 220, 90),
)  # fmt: skip
"""Of the background, and of objects."""
PAUSE = 5
"""How often the last frame is repeated before a clip begins again."""


@dataclass(frozen=True)
class Clip:
    """A picture that moves.

    Attributes:
        frames: uint8 (T, H, W, 3).
        fps: frames per second.
    """

    frames: NDArray[np.uint8]
    fps: float


def model_clip(
    model: WorldModel, scenes: int = 2, worlds: int = 4, scale: int = 4, seed: int = 0
) -> Clip:
    """Truth and sampled worlds of test scenes: a row for each scene, the truth on the left.

    The context is in a yellow border: five views where the keys are camera poses, the first six
    frames where the scene is passive, else the first frame alone, and never more than the model
    takes. The scene's own actions are the plan. The scenes are the longest of the first 32 of the
    test split. A model that draws from nothing has worlds that are other scenes. Of one without a
    future, INFERNO, each frame is given and rendered again, and its objects are in colours of their
    own.

    Args:
        model: trained on one of our environments, which is its ``env_id``.
        scenes: rows, 1 to 32.
        worlds: columns beside the truth, at least 1.
        scale: times by which each pixel is repeated, at least 1.
        seed: of the scenes and of the worlds.

    Raises:
        ValueError: an argument is out of its range, the model does not know its environment, or
            that is none of ours.
    """
    numbers_at_least(1, scenes=scenes, worlds=worlds, scale=scale)
    if scenes > CANDIDATES:
        raise ValueError(f"scenes: expected at most {CANDIDATES}, got {scenes}")
    if model.env_id is None:
        raise ValueError("model: expected one that knows its environment (env_id); it is None")
    batch = held_out(model, model.env_id, CANDIDATES, seed)
    longest = batch.lengths.argsort(descending=True, stable=True)[:scenes]
    batch = batch.rows(longest.sort().values)
    spec, stride = model.spec, model.stride
    last = min(LAST, spec.window, int(batch.lengths.min()))
    if isinstance(model, Inferno):
        videos, captions = _decomposed(model, batch, last)
        boxes = framed(videos, np.zeros(last + 1, dtype=bool), scale)
        return Clip(_with_pause(tile_videos(boxes, 3, captions=captions)), 3)
    count = CONTEXT_VIEWS if spec.pose else PASSIVE_CONTEXT if spec.passive else 1
    if model.max_context is not None:
        count = min(count, model.max_context)
    given = range(0, count, stride)
    later = range(given[-1] + stride if given else 0, last + 1, stride)
    imagined = imagine(model, batch, given or (0,), later, worlds, seed)
    context = batch.observations(torch.tensor([given] * scenes, dtype=torch.int64))
    columns = torch.cat([imagined.truth[:, None], imagined.worlds], 1)  # (B, 1 + S, K, H, W, C)
    shared = context[:, None].expand(-1, worlds + 1, -1, -1, -1, -1)
    videos = torch.cat([shared, columns], 2).flatten(0, 1).numpy()
    first = "truth" if given else "a real scene"
    captions = [first, *(f"world {i + 1}" for i in range(worlds))] * scenes
    in_context = np.arange(videos.shape[1]) < len(given)
    boxes = framed(videos, in_context, scale)
    frames = tile_videos(boxes, worlds + 1, captions=captions)
    # Views and strides are far apart: each needs a look of its own.
    return Clip(_with_pause(frames), 1.5 if spec.pose or stride > 1 else 5)


def _decomposed(
    model: Inferno, scenes: SceneBatch, last: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Videos (3 B, T, H, W, C) of each scene: truth, rendered, and objects; and captions."""
    times = torch.arange(last + 1).expand(len(scenes.lengths), -1)
    truth = scenes.observations(times)
    with torch.inference_mode():
        view = model.render(model.infer(to_float(truth.flatten(0, 1))))
    rendered = to_uint8(view.frames).view_as(truth)
    owner = view.masks.argmax(1) % len(OBJECT_COLOURS)
    objects = torch.tensor(OBJECT_COLOURS, dtype=torch.uint8)[owner].view_as(truth)
    videos = torch.stack([truth, rendered, objects], 1).flatten(0, 1).numpy()
    return videos, ["truth", "rendered", "objects"] * len(times)


def env_clip(env_id: str, side: int = 128, length: int = 31, seed: int = 0) -> Clip:
    """Random play, one episode after the other until the clip has ``length`` frames.

    Args:
        env_id: id of one of our environments.
        side: height and width in pixels, a multiple of 64; pixels are repeated.
        length: frames of the clip, at least 1; the last episode is played to its end.
        seed: of scenes and actions.

    Raises:
        ValueError: ``side`` or ``length`` is out of its range.
    """
    numbers_at_least(1, length=length)
    if side < 64 or side % 64:
        raise ValueError(f"side: expected a multiple of 64, got {side}")
    frames = np.concatenate(list(_episodes(env_id, length, seed)))
    times = side // frames.shape[1]
    return Clip(frames.repeat(times, 1).repeat(times, 2), 2 if env_id == VIEWS else 5)


def _episodes(env_id: str, length: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    count = 0
    while count < length:
        (video,) = random_videos(env_id, episodes=1, seed=seed)
        video = _with_pause(video)
        yield video
        count += len(video)
        seed += 1


def _with_pause(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([frames, frames[-1:].repeat(PAUSE, 0)])
