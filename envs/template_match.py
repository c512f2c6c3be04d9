"""Which drawing a frame shows: comparison that a model's blur does not upset."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

SOFTENING: Final = (0, 1, 3)
"""Blur passes before each comparison; they add up (0, 1 and 4 in all)."""


def nearest(frames: Tensor, drawings: Tensor) -> Tensor:
    """For each frame the drawing with the least squared error.

    Generated frames may be soft, so each drawing is tried sharp and softened to two degrees.

    Args:
        frames: ``(B, n, H, W, 3)`` float32 in [0, 1].
        drawings: ``(B, h, H, W, 3)`` float32 in [0, 1], h hypotheses for each of B scenes.

    Returns:
        ``(B, n)`` int64, index of the hypothesis; of equally near ones the first.
    """
    return errors(frames, drawings).argmin(-1)


def errors(frames: Tensor, drawings: Tensor) -> Tensor:
    """Squared error of each drawing in its best softness, ``(B, n, h)``; see :func:`nearest`."""
    least = frames.new_full((*frames.shape[:2], drawings.shape[1]), torch.inf)
    for passes in SOFTENING:
        for _ in range(passes):
            drawings = soften(drawings)
        for h in range(drawings.shape[1]):
            error = (frames - drawings[:, None, h]).square().sum((2, 3, 4))
            least[..., h] = torch.minimum(least[..., h], error)
    return least


def soften(frames: Tensor) -> Tensor:
    """Blur (B, n, H, W, C) with the kernel 1, 2, 1 along rows and columns, black around."""
    for row_pad, dim in (((0, 0, 0, 0, 1, 1), 2), ((0, 0, 1, 1), 3)):
        padded, length = pad(frames, row_pad), frames.shape[dim]
        frames = (
            padded.narrow(dim, 0, length) / 4
            + padded.narrow(dim, 1, length) / 2
            + padded.narrow(dim, 2, length) / 4
        )
    return frames
