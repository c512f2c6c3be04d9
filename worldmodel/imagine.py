"""Show some frames of a scene to a model, and draw what it imagines at others.

Any times may be shown and asked for: forwards, backwards, in between, both ways (seed 001,
figures 3 and 4); with camera poses as keys, any views (figure 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.common.files import atomic
from worldmodel.common.tensorboard import add_video
from worldmodel.spec import to_float, to_uint8
from worldmodel.training import Progress
from worldmodel.types import Context, Queries, SceneBatch

_GAP = 2  # pixels between pictures
_SEEN = (255, 200, 0)  # border of the frames that were shown
_GROUND = (40, 40, 40)


@dataclass(frozen=True)
class Imagined:
    """Truth and imagination of B scenes at K times.

    Attributes:
        truth: uint8 (B, K, H, W, C).
        worlds: uint8 (B, S, K, H, W, C), S sampled worlds.
        seen: bool (K,), which of the times were shown.
    """

    truth: Tensor
    worlds: Tensor
    seen: Tensor


def imagine(
    model: WorldModel,
    scenes: SceneBatch,
    seen: Sequence[int],
    asked: Sequence[int],
    worlds: int = 4,
    seed: int = 0,
) -> Imagined:
    """Observe the frames ``seen`` of each scene, and look at the times ``asked``.

    The actions of the scene are the plan. Where poses are the keys, times number the views.

    Args:
        model: of the scenes' environment.
        scenes: B scenes.
        seen: times of the context, at least one.
        asked: times to look at, at least one, in any order.
        worlds: S.
        seed: of the worlds.

    Raises:
        UnsupportedQuery: a frame-by-frame model cannot look there.
        ValueError: a time lies outside of the scenes, or the model cannot take the context.
    """
    model.spec.require_images("model")
    last = int(scenes.lengths.min())
    for name, times in (("seen", seen), ("asked", asked)):
        if not times or min(times) < 0 or max(times) > last:
            raise ValueError(f"{name}: expected times in 0 .. {last}, got {list(times)}")
    batch, device = len(scenes.lengths), model.device
    shown, wanted = (
        torch.tensor(list(times), device=scenes.lengths.device).expand(batch, -1)
        for times in (seen, asked)
    )
    frames = to_float(scenes.observations(shown)).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.inference_mode():
        if model.spec.pose:
            poses, views = scenes.poses(shown), scenes.poses(wanted)
            if poses is None or views is None:
                raise ValueError("scenes: the model's keys are camera poses; these have none")
            context = Context.views(frames, poses.to(device))
            queries = Queries.views(views.to(device))
        else:
            actions = None if model.spec.passive else scenes.actions.to(device)
            context = Context(frames, shown.to(device), actions)
            present = max(seen)
            plan = None if actions is None else actions[:, None, present:]
            queries = Queries(wanted.to(device), plan)
        sampled = model.sample(model.observe(context), worlds, generator)
        answer = model.predict(sampled, queries).observations
    assert answer is not None
    known = torch.isin(wanted[0], shown[0]).cpu()
    return Imagined(scenes.observations(wanted).cpu(), to_uint8(answer[:, :, 0]).cpu(), known)


def sheet(imagined: Imagined, scale: int = 2) -> NDArray[np.uint8]:
    """For each scene a row of truth, frames that were shown in a yellow border, and S below it.

    Args:
        imagined: B scenes.
        scale: times by which each pixel is repeated.

    Returns:
        uint8 (height, width, 3).
    """
    rows, none = [], torch.zeros_like(imagined.seen)
    for truth, worlds in zip(imagined.truth.numpy(), imagined.worlds.numpy(), strict=True):
        rows += [_row(truth, imagined.seen, scale), *(_row(one, none, scale) for one in worlds)]
    return np.concatenate(rows)


def film(imagined: Imagined, scale: int = 2) -> NDArray[np.uint8]:
    """One frame for each time: a column for each scene, truth above its S worlds.

    Returns:
        uint8 (K, height, width, 3).
    """
    frames = []
    for k, known in enumerate(imagined.seen):
        marked = known.expand(len(imagined.truth))
        rows = [_row(imagined.truth[:, k].numpy(), marked, scale)]
        rows += [
            _row(one.numpy(), marked & False, scale) for one in imagined.worlds[:, :, k].unbind(1)
        ]
        frames.append(np.concatenate(rows))
    return np.stack(frames)


def write(imagined: Imagined, out: Path, fps: int = 4, scale: int = 2) -> None:
    """Write a contact sheet (.png) or a film (.gif).

    Raises:
        ValueError: ``out`` ends otherwise.
    """
    if out.suffix not in (".png", ".gif"):
        raise ValueError(f"out: expected a file that ends in .png or .gif, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as path:
        if out.suffix == ".png":
            Image.fromarray(sheet(imagined, scale)).save(path, optimize=True)
            return
        first, *rest = [Image.fromarray(frame) for frame in film(imagined, scale)]
        first.save(path, save_all=True, append_images=rest, duration=1000 // fps, loop=0)


class ImaginedVideo:
    """A callback of ``fit``: a film in TensorBoard of truth and what the model imagines by then.

    A column for each scene: what really happens on top, its sampled worlds below.

    Args:
        scenes: what to imagine; their first frames are shown.
        every: training steps between films; one is also made at the first log.
        worlds: futures per scene.
        seed: of the worlds: always the same noise, so that films can be compared.
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
        """Log a film if it is time for one and there is a TensorBoard."""
        if progress.writer is None or progress.step < self._next:
            return
        self._next = progress.step + self.every
        times = range(0, int(self.scenes.lengths.min()) + 1, progress.model.stride)
        imagined = imagine(progress.model, self.scenes, [0], times, self.worlds, self.seed)
        rows = torch.cat([imagined.truth[:, None], imagined.worlds], 1).transpose(0, 1)
        names = ["real", *(f"imagined {i + 1}" for i in range(self.worlds))]
        count = len(imagined.truth)
        captions = [f"scene {i + 1}: {name}" for name in names for i in range(count)]
        add_video(
            progress.writer, "videos/real_imagined", rows.flatten(0, 1), progress.step, self.fps,
            columns=count, captions=captions,
        )  # fmt: skip


def _row(pictures: NDArray[np.uint8], marked: Tensor, scale: int) -> NDArray[np.uint8]:
    """Pictures (K, H, W, C) side by side, each in a border."""
    boxes = []
    for picture, mark in zip(pictures, marked.tolist(), strict=True):
        large = picture.repeat(scale, 0).repeat(scale, 1)
        height, width = large.shape[:2]
        box = np.empty((height + 2 * _GAP, width + 2 * _GAP, 3), np.uint8)
        box[:] = _SEEN if mark else _GROUND
        box[_GAP:-_GAP, _GAP:-_GAP] = large
        boxes.append(box)
    return np.concatenate(boxes, 1)
