"""Positions in a picture as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def coordinate_waves(height: int, width: int) -> Tensor:
    """Sines and cosines of half to four periods along each axis: (16, height, width)."""
    return torch.stack(_waves(*_centres(height, width)))


def cell_positions(height: int, width: int) -> Tensor:
    """The centres of height x width cells, row by row: x and y in [0, 1] and their waves.

    Returns:
        float32 (height * width, 18).
    """
    y, x = _centres(height, width)
    return with_waves(torch.stack([x, y], -1).flatten(0, 1))


def with_waves(points: Tensor) -> Tensor:
    """Points (..., 2), x and y where the picture is from 0 to 1, and their waves: (..., 18)."""
    x, y = points.unbind(-1)
    return torch.cat([points, torch.stack(_waves(y, x), -1)], -1)


def _waves(y: Tensor, x: Tensor) -> list[Tensor]:
    """Sines and cosines of half to four periods along each axis, 16 of the shape of x and y."""
    waves = []
    for period in (0.5, 1.0, 2.0, 4.0):
        for axis in (y, x):
            angle = 2 * math.pi * period * axis
            waves += [angle.sin(), angle.cos()]
    return waves


def _centres(height: int, width: int) -> tuple[Tensor, Tensor]:
    """y and x of all cells' centres, in [0, 1], each (height, width)."""
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return y, ((torch.arange(width) + 0.5) / width).expand(height, width)
