"""What a model imagines of scenes, given some of their frames: samples, contact sheets, videos.

Context and queries are at any times: forwards, backwards, in between (seed 001, figures 3 and 4);
with camera poses as keys, they are any views (figure 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.common.files import atomic, check_suffix
from worldmodel.common.tensorboard import add_video
from worldmodel.common.video import encode_gif
from worldmodel.spec.parts import to_float, to_uint8
from worldmodel.training import Progress
from worldmodel.types import Context, Queries, SceneBatch, Worlds

BORDER = 2
"""Pixels around each picture."""
CONTEXT_COLOUR, OTHER_COLOUR = (255, 200, 0), (40, 40, 40)
"""Of the border: around a frame of the context, and around any other."""


@dataclass(frozen=True)
class Imagined:
    """Truth and imagination of B scenes at K times.

    Attributes:
        truth: uint8 (B, K, H, W, C).
        worlds: uint8 (B, S, K, H, W, C), S sampled worlds.
        in_context: bool (K,), which of the times are also times of the context.
    """

    truth: Tensor
    worlds: Tensor
    in_context: Tensor


class Sampled(NamedTuple):
    """Worlds of B scenes, and what they look like at K times.

    Attributes:
        worlds: S of each scene.
        queries: of the times.
        frames: float32 (B, S, K, C, H, W), along the scenes' own actions.
    """

    worlds: Worlds
    queries: Queries
    frames: Tensor


@torch.inference_mode()
def sample_frames(
    model: WorldModel,
    scenes: SceneBatch,
    context_times: Sequence[int],
    query_times: Sequence[int],
    worlds: int = 4,
    seed: int = 0,
) -> Sampled:
    """Observe each scene at some times, and sample what it looks like at others.

    The actions of the scene are the plan. Where poses are the keys, times number the views. A model
    that draws from nothing (``max_context`` of 0) observes none: its worlds are other scenes.

    Args:
        model: of the scenes' environment.
        scenes: B scenes.
        context_times: at least one.
        query_times: at least one, in any order.
        worlds: S.
        seed: of the worlds.

    Raises:
        UnsupportedQuery: a frame-by-frame model cannot reach a query.
        ValueError: a time lies outside of the scenes, or the model cannot take the context.
    """
    model.spec.require_images("model")
    last = int(scenes.lengths.min())
    for name, times in (("context", context_times), ("queries", query_times)):
        if not times or min(times) < 0 or max(times) > last:
            raise ValueError(f"{name}: expected times in 0 .. {last}, got {list(times)}")
    device = model.device
    given, wanted = _of_each(scenes, context_times), _of_each(scenes, query_times)
    frames = to_float(scenes.observations(given)).to(device)
    if model.spec.pose:
        poses, views = scenes.poses(given), scenes.poses(wanted)
        if poses is None or views is None:
            raise ValueError("scenes: the model's keys are camera poses; these have none")
        context = Context.views(frames, poses.to(device))
        queries = Queries.views(views.to(device))
    elif model.max_context == 0:
        context = Context.empty(len(scenes.lengths), model.spec.observation)
        queries = Queries(wanted.to(device))
    else:
        actions = None if model.spec.passive else scenes.actions.to(device)
        context = Context(frames, given.to(device), actions)
        plan = None if actions is None else actions[:, None, max(context_times) :]
        queries = Queries(wanted.to(device), plan)
    generator = torch.Generator(device).manual_seed(seed)
    sampled = model.sample(model.observe(context), worlds, generator)
    answer = model.predict(sampled, queries).observations
    assert answer is not None
    return Sampled(sampled, queries, answer[:, :, 0])


def imagine(
    model: WorldModel,
    scenes: SceneBatch,
    context_times: Sequence[int],
    query_times: Sequence[int],
    worlds: int = 4,
    seed: int = 0,
) -> Imagined:
    """``sample_frames`` (see there), and the truth to compare with."""
    frames = sample_frames(model, scenes, context_times, query_times, worlds, seed).frames
    in_context = torch.isin(torch.tensor([*query_times]), torch.tensor([*context_times]))
    truth = scenes.observations(_of_each(scenes, query_times)).cpu()
    return Imagined(truth, to_uint8(frames).cpu(), in_context & (model.max_context != 0))


def times_in_reach(model: WorldModel, context_times: Sequence[int], last: int) -> Sequence[int]:
    """All times up to ``last`` that the model reaches from a context at these times."""
    if model.horizon == 0:
        return context_times
    return range(0 if model.jumpy else max(context_times), last + 1, model.stride)


def framed(
    pictures: NDArray[np.uint8], in_context: NDArray[np.bool_], scale: int
) -> NDArray[np.uint8]:
    """Pictures (..., K, H, W, C), enlarged, each in a border, yellow where it is in the context.

    Args:
        pictures: of K times; C is 1 or 3.
        in_context: (K,).
        scale: times by which each pixel is repeated.

    Returns:
        (..., K, H * scale + 2 * BORDER, W * scale + 2 * BORDER, 3).
    """
    large = pictures.repeat(scale, -3).repeat(scale, -2)
    *lead, height, width, _ = large.shape
    boxes = np.empty((*lead, height + 2 * BORDER, width + 2 * BORDER, 3), np.uint8)
    boxes[:] = OTHER_COLOUR
    boxes[..., in_context, :, :, :] = CONTEXT_COLOUR
    boxes[..., BORDER:-BORDER, BORDER:-BORDER, :] = large
    return boxes


def sheet(imagined: Imagined, scale: int = 2) -> NDArray[np.uint8]:
    """For each scene a row of truth, frames of the context in a yellow border, and S rows below it.

    Args:
        imagined: B scenes.
        scale: times by which each pixel is repeated.

    Returns:
        uint8 (height, width, 3).
    """
    rows, none = [], torch.zeros_like(imagined.in_context)
    for truth, worlds in zip(imagined.truth, imagined.worlds, strict=True):
        rows.append(_row(truth, imagined.in_context, scale))
        rows += [_row(world, none, scale) for world in worlds]
    return np.concatenate(rows)


def video(imagined: Imagined, scale: int = 2) -> NDArray[np.uint8]:
    """One frame for each time: a column for each scene, truth above its S worlds.

    Returns:
        uint8 (K, height, width, 3).
    """
    frames = []
    for k, mark in enumerate(imagined.in_context):
        marked = mark.expand(len(imagined.truth))
        rows = [_row(imagined.truth[:, k], marked, scale)]
        worlds = imagined.worlds[:, :, k].unbind(1)
        rows += [_row(world, marked & False, scale) for world in worlds]
        frames.append(np.concatenate(rows))
    return np.stack(frames)


def write(imagined: Imagined, out: Path, fps: int = 4, scale: int = 2) -> None:
    """Write a contact sheet (.png) or a video (.gif).

    Raises:
        ValueError: ``out`` ends otherwise.
    """
    check_suffix(out, ".png", ".gif", name="out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as path:
        if out.suffix.lower() == ".png":
            Image.fromarray(sheet(imagined, scale)).save(path, optimize=True)
            return
        path.write_bytes(encode_gif(video(imagined, scale), fps))


class ImaginedVideo:
    """A callback of ``fit``: a video in TensorBoard of truth and what the model imagines.

    A column for each scene: what really happens on top, its sampled worlds below.

    Args:
        scenes: what to imagine; their first frames are the context.
        every: training steps between videos; one is also made at the first log.
        worlds: futures per scene.
        seed: of the worlds: always the same noise, so that videos can be compared.
        fps: frames per second.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(
        self, scenes: SceneBatch, every: int = 1000, worlds: int = 2, seed: int = 0, fps: float = 4
    ) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1 step, got {every}")
        self.scenes, self.every, self.worlds = scenes, every, worlds
        self.seed, self.fps = seed, fps
        self._next = 0

    def __call__(self, progress: Progress) -> None:
        """Log a video if it is time for one and there is a TensorBoard."""
        if progress.writer is None or progress.step < self._next:
            return
        self._next = progress.step + self.every
        times = times_in_reach(progress.model, [0], int(self.scenes.lengths.min()))
        imagined = imagine(progress.model, self.scenes, [0], times, self.worlds, self.seed)
        rows = torch.cat([imagined.truth[:, None], imagined.worlds], 1).transpose(0, 1)
        names = ["real", *(f"imagined {i + 1}" for i in range(self.worlds))]
        count = len(imagined.truth)
        captions = [f"scene {i + 1}: {name}" for name in names for i in range(count)]
        add_video(
            progress.writer, "videos/real_imagined", rows.flatten(0, 1), progress.step, self.fps,
            columns=count, captions=captions,
        )  # fmt: skip


def _row(pictures: Tensor, in_context: Tensor, scale: int) -> NDArray[np.uint8]:
    """Pictures (K, H, W, C) side by side, each in a border."""
    return np.concatenate(framed(pictures.numpy(), in_context.numpy(), scale), 1)


def _of_each(scenes: SceneBatch, times: Sequence[int]) -> Tensor:
    """int64 (B, K): the same times of all scenes."""
    return torch.tensor(list(times), device=scenes.lengths.device).expand(len(scenes.lengths), -1)
