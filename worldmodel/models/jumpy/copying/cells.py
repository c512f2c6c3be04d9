"""Cells: the squares of a few pixels into which frames are cut."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Grid:
    """Frames of height x width pixels, in cells of ``side`` pixels each way.

    Attributes:
        rows, columns: numbers of cells, both even.
        cells: in all.
        tokens: squares of 2 x 2 cells, each with its own numbers of z.
    """

    def __init__(self, height: int, width: int, side: int) -> None:
        self.height, self.width, self.side = height, width, side
        self.rows, self.columns = height // side, width // side
        self.cells, self.tokens = self.rows * self.columns, self.rows * self.columns // 4

    def group(self, x: Tensor) -> Tensor:
        """Cells (P, cells, D) to squares of 2 x 2: (P, tokens, 4 * D)."""
        x = x.unflatten(1, (self.rows // 2, 2, self.columns // 2, 2))
        return x.transpose(2, 3).flatten(3).flatten(1, 2)

    def ungroup(self, x: Tensor) -> Tensor:
        """The inverse of ``group``."""
        x = x.unflatten(2, (2, 2, -1)).unflatten(1, (self.rows // 2, self.columns // 2))
        return x.transpose(2, 3).flatten(1, 4)

    def picture(self, x: Tensor) -> Tensor:
        """Cells (P, cells, D) as (P, D, rows, columns)."""
        picture: Tensor = x.transpose(1, 2).unflatten(2, (self.rows, self.columns))
        return picture


class Stem(nn.Module):
    """Frames to features of their cells: convolutions, plus a linear map of each cell's pixels."""

    def __init__(self, channels: int, side: int, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 64, 4, 4), nn.GELU()]
        for _ in range(round(math.log2(side)) - 2):
            layers += [nn.Conv2d(64, 64, 2, 2), nn.GELU()]
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, features, 1)]
        self.convolve = nn.Sequential(*layers)
        self.linear = nn.Conv2d(channels, features, side, side)

    def forward(self, frames: Tensor) -> Tensor:
        """(P, C, H, W) to (P, cells, features)."""
        frames = frames.contiguous(memory_format=torch.channels_last)  # faster on CPUs
        features: Tensor = self.convolve(frames) + self.linear(frames)
        return features.flatten(2).transpose(1, 2)
