"""Positions in a picture as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def coordinate_waves(height: int, width: int) -> Tensor:
    """Sines and cosines of half to four periods along each axis: (16, height, width)."""
    y, x = _centres(height, width)
    waves = []
    for period in (0.5, 1.0, 2.0, 4.0):
        for axis in (y, x):
            angle = 2 * math.pi * period * axis
            waves += [angle.sin(), angle.cos()]
    return torch.stack(waves)


def cell_positions(height: int, width: int) -> Tensor:
    """The centres of height x width cells, row by row: x and y in [0, 1] and their waves.

    Returns:
        float32 (height * width, 18).
    """
    y, x = _centres(height, width)
    return torch.cat([torch.stack([x, y]), coordinate_waves(height, width)]).flatten(1).T


def _centres(height: int, width: int) -> tuple[Tensor, Tensor]:
    """y and x of all cells' centres, in [0, 1], each (height, width)."""
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return y, ((torch.arange(width) + 0.5) / width).expand(height, width)
