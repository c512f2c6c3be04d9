"""Frames read back into facts: where the balls are, and how they moved."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.balls.scene import BALLS, CELLS, MOVES, RandomWalkState
from envs.narratives.shapes import PALETTE

NONE = -1
"""What ``moves_of`` says of anything but one cardinal move."""
_CORE = 0.04  # half the width of a cell's middle, in canvas widths: well inside a ball
_HIDDEN = 0.2  # squared distance of colours from which a ball counts as covered


def locate(frames: Tensor, facts: RandomWalkState) -> Tensor:
    """In which cell each known ball is, in (generated) frames.

    A ball is in the cell whose middle is nearest to its colour; where none is near, another ball
    covers it. Foremost balls are looked for first. Right for .99 of balls in test frames at 32 and
    64 pixels, also blurred 3 or 5 pixels wide; the rest are covered.

    Args:
        frames: ``(B, n, S, S, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them.

    Returns:
        ``(B, n, 3, 2)`` int64, column and row 0 .. 7.

    Raises:
        ValueError: wrong shape.
    """
    batch, shape = len(facts.scene_ids), tuple(frames.shape)
    if len(shape) != 5 or shape[0] != batch or shape[2:] != (shape[2], shape[2], 3):
        raise ValueError(f"frames must be ({batch}, n, S, S, 3), got {shape}")
    seen = frames.to(torch.float32) / (1 if frames.is_floating_point() else 255)
    middles = seen.flatten(2, 3).transpose(2, 3) @ _middles(frames.shape[2], frames.device)
    colours = torch.tensor(PALETTE, device=frames.device)[facts.colours] / 255  # (B, 3, 3)
    away = (middles[:, :, None] - colours[:, None, :, :, None]).square().sum(3)  # (B, n, 3, 64)
    covered = torch.zeros_like(away[:, :, 0], dtype=torch.bool)
    found = torch.zeros(away.shape[:3], dtype=torch.int64, device=frames.device)
    for ball in reversed(range(BALLS)):
        distance = away[:, :, ball]
        distance = torch.where(covered, distance.clamp_max(_HIDDEN), distance)
        found[:, :, ball] = distance.argmin(-1)
        covered = covered | (
            torch.arange(CELLS * CELLS, device=found.device) == found[:, :, ball, None]
        )
    return torch.stack([found % CELLS, found // CELLS], -1)


def moves_of(cells: Tensor) -> Tensor:
    """Which move each ball made between frames.

    Args:
        cells: ``(B, n, 3, 2)`` int64, as of :func:`locate`.

    Returns:
        ``(B, n - 1, 3)`` int64: index into ``MOVES``, or -1 (``NONE``) for anything else.

    Raises:
        ValueError: wrong shape.
    """
    if cells.ndim != 4 or cells.shape[-1] != 2:
        raise ValueError(f"cells must be (B, n, balls, 2), got {tuple(cells.shape)}")
    went = (cells[:, 1:] - cells[:, :-1])[..., None, :]
    known = torch.tensor(MOVES, device=cells.device).to(cells.dtype)
    same = (went == known).all(-1)  # (B, n - 1, 3, 4)
    return torch.where(same.any(-1), same.to(torch.int64).argmax(-1), NONE)


def _middles(size: int, device: torch.device) -> Tensor:
    """Weights that average a frame over the middle of each cell, (size * size, 64)."""
    place = (torch.arange(size, device=device) + 0.5) / size
    cell = (torch.arange(CELLS, device=device) + 0.5) / CELLS
    near = ((place[:, None] - cell).abs() < _CORE).to(torch.float32)  # (size, 8)
    near = near / near.sum(0)
    weights = near[:, None, :, None] * near[None, :, None, :]  # (y, x, row, column)
    return weights.reshape(size * size, CELLS * CELLS)
