"""Frames read by analysis by synthesis: which rendering a frame shows, however blurred it is."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

BLUR_PASSES: Final = (0, 1, 3)
"""Blur passes before each comparison; they add up (0, 1 and 4 in all)."""


def white_level(frames: Tensor, batch: int) -> float:
    """What white is in ``frames``: 255 if they are uint8, 1 if they are floating point.

    Raises:
        ValueError: ``frames`` are not ``(batch, n, S, S, 3)``.
    """
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[0] != batch or shape[2:] != (shape[2], shape[2], 3):
        raise ValueError(f"frames must be ({batch}, n, S, S, 3), got {shape}")
    return 1.0 if frames.is_floating_point() else 255.0


def nearest(frames: Tensor, templates: Tensor) -> Tensor:
    """For each frame the template with the least squared error.

    Generated frames may be soft, so each template is tried sharp and blurred to two degrees.

    Args:
        frames: ``(B, n, H, W, 3)`` float32 in [0, 1].
        templates: ``(B, h, H, W, 3)`` float32 in [0, 1], h hypotheses for each of B scenes.

    Returns:
        ``(B, n)`` int64, index of the hypothesis; of equally near ones the first.
    """
    return errors(frames, templates).argmin(-1)


def errors(frames: Tensor, templates: Tensor) -> Tensor:
    """Squared error of each template at its best blur, ``(B, n, h)``; see :func:`nearest`."""
    least = frames.new_full((*frames.shape[:2], templates.shape[1]), torch.inf)
    for passes in BLUR_PASSES:
        for _ in range(passes):
            templates = blur(templates)
        for h in range(templates.shape[1]):
            error = (frames - templates[:, None, h]).square().sum((2, 3, 4))
            least[..., h] = torch.minimum(least[..., h], error)
    return least


def blur(frames: Tensor) -> Tensor:
    """Blur (B, n, H, W, C) with the kernel 1, 2, 1 along rows and columns, black around."""
    for padding, dim in (((0, 0, 0, 0, 1, 1), 2), ((0, 0, 1, 1), 3)):
        padded, length = pad(frames, padding), frames.shape[dim]
        before, here, after = (padded.narrow(dim, start, length) for start in range(3))
        frames = before / 4 + here / 2 + after / 4
    return frames
