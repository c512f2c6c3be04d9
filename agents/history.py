"""Frames and actions so far, at the border between Gymnasium and world models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import actions as action_border
from worldmodel.spec import Spec
from worldmodel.types import Context

Frames = NDArray[Any]
"""uint8 images (..., H, W, C), float32 vectors (..., D), or what ``Spec.pack`` makes of Dicts."""


@dataclass(frozen=True)
class History:
    """Frames and actions of one scene since the origin of its window. Immutable.

    Attributes:
        frames: uint8 (H, W, C), float32 (D,), or a packed Dict, each.
        times: ascending steps from the origin, one for each frame; the last is the present.
        actions: one (*action) per step from the origin to the present.
    """

    frames: tuple[Frames, ...]
    times: tuple[int, ...]
    actions: tuple[NDArray[Any], ...] = ()

    @classmethod
    def start(cls, frame: Frames) -> History:
        """A window that begins at this frame."""
        return cls((np.array(frame),), (0,))

    @property
    def present(self) -> int:
        """Steps taken since the origin."""
        return len(self.actions)

    def add(self, actions: Sequence[NDArray[Any]], frame: Frames) -> History:
        """Append the actions that followed, and the frame that they led to."""
        longer = (*self.actions, *(np.array(action) for action in actions))
        return History((*self.frames, np.array(frame)), (*self.times, len(longer)), longer)

    def latest(self, count: int) -> History:
        """Re-anchor: the window that begins at the ``count``-th latest frame."""
        origin = self.times[-count]
        times = tuple(time - origin for time in self.times[-count:])
        return History(self.frames[-count:], times, self.actions[origin:])


def context_indices(count: int, limit: int | None, first: bool = True) -> list[int]:
    """Which of ``count`` frames a model is given as context: the first and the latest ones.

    ``limit`` is how many it takes at most (``WorldModel.max_context``), None for any number. The
    first frame is the origin of the window; models that need consecutive frames go without it.
    """
    if limit is None or count <= limit:
        return list(range(count))
    head = [0] if first and limit > 1 else []
    return head + list(range(count - limit + len(head), count))


def check_frames(spec: Spec, observations: Any, argument: str, count: int | None = None) -> Frames:
    """Return the observations as uint8 (B, H, W, C) of the model's size, or as float32 (B, D).

    Dicts of arrays (B, \\*part) are packed; packed ones are returned as they are.

    Raises:
        TypeError: images that are not uint8, vectors that are not numbers, no Dict where there
            should be one.
        ValueError: another shape (says so if the channels come first), or NaN.
    """
    shape, dtype = spec.border
    frames = spec.pack(observations, argument)
    numbers = np.issubdtype(frames.dtype, np.floating)
    if frames.dtype != dtype and not (numbers and dtype == np.float32):
        kind = "images (B, H, W, C)" if spec.is_image else "vectors (B, D)"
        raise TypeError(f"{argument}: expected {dtype} {kind}, got {frames.dtype} {frames.shape}")
    if frames.shape[1:] != shape or frames.shape[0] < 1:
        hint = ""
        if spec.is_image and frames.shape[1:] == spec.observation:
            hint = "; the channels come first: leave VecTransposeImage away"
        expected = ", ".join(str(n) for n in shape)
        raise ValueError(f"{argument}: expected shape (B, {expected}), got {frames.shape}{hint}")
    if numbers and not np.isfinite(frames).all():
        raise ValueError(f"{argument}: holds NaN or infinity")
    frames = frames.astype(dtype, copy=False)
    if count is not None and len(frames) != count:
        raise ValueError(f"{argument}: expected {count} observations, got {len(frames)}")
    return frames


def to_context(
    spec: Spec,
    histories: Sequence[History],
    pairs: Sequence[Sequence[int]],
    device: torch.device,
) -> Context:
    """Batch frames of B scenes for ``model.observe``; ``pairs`` are the indices of each scene's."""
    shape, dtype = spec.border
    lead = (len(histories), max(len(own) for own in pairs))
    frames = np.zeros((*lead, *shape), dtype)
    times = np.zeros(lead, np.int64)
    mask = np.zeros(lead, np.bool_)
    for row, (history, own) in enumerate(zip(histories, pairs, strict=True)):
        for slot, pair in enumerate(own):
            frames[row, slot] = history.frames[pair]
            times[row, slot] = history.times[pair]
        mask[row, : len(own)] = True
    present = np.array([history.present for history in histories], np.int64)
    actions = spec.action.blank(len(histories), int(present.max()))
    for row, history in enumerate(histories):
        if history.actions:
            actions[row, : history.present] = np.stack(history.actions)
    return batch_context(spec, frames, times, mask, actions, present, device)


def batch_context(
    spec: Spec,
    frames: Frames,
    times: NDArray[np.int64],
    mask: NDArray[np.bool_],
    actions: NDArray[Any],
    present: NDArray[np.int64],
    device: torch.device,
) -> Context:
    """``Context`` of arrays as environments have them, on ``device``.

    Args:
        spec: of the model.
        frames: (B, M, \\*observation).
        times, mask: (B, M).
        actions: (B, T, \\*action) since each window's origin.
        present: (B,), at most T.
        device: of the model.
    """
    lead = actions.shape[:2]
    taken: Tensor | None = None
    if not spec.passive and lead[1]:
        taken = action_border.to_tensor(spec.action, actions, lead, device, "actions")
    return Context(
        spec.to_model(torch.from_numpy(frames).to(device)),
        torch.from_numpy(times).to(device),
        taken,
        torch.from_numpy(mask).to(device),
        torch.from_numpy(present).to(device),
    )
