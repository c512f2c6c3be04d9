"""What the context says: a memory of its frames by time, and features of the scene's cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldmodel.models.jumpy.copying.cells import Grid, Stem
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.keys import TimeFeatures
from worldmodel.models.layers.positions import cell_positions
from worldmodel.models.layers.transformer import Block, perceptron


class FrameMemory(nn.Module):
    """r = sum_j k(t_j) (outer) phi(x_j) for each cell: a linear-attention memory.

    A sum over frames, so it is a set and extends at the cost of one frame. ``read`` answers a time
    with q(t) . r. The key is the time alone: it names a frame of the one history that a context
    shows; what actions change is known to the transformer over plans.
    """

    def __init__(self, channels: int, grid: Grid, window: int, config: CopyingConfig) -> None:
        super().__init__()
        self.features = config.key_features
        self.time = TimeFeatures(window, config.time_bands)
        self.stem = Stem(channels, grid.side, config.content)
        widths = (self.time.features, config.width, config.key_features)
        self.write_key, self.read_key = perceptron(*widths), perceptron(*widths)

    def forward(self, frames: Tensor, times: Tensor, mask: Tensor) -> Tensor:
        """r (B, features, cells, content) of frames (B, M, C, H, W) at times (B, M), mask (B, M).

        The outer products are summed by one matrix product, without holding each in memory.
        """
        content = self.stem(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        key = self.write_key(self.time(times)) * mask.unsqueeze(-1)
        r: Tensor = key.transpose(1, 2).to(content.dtype) @ content.flatten(2)
        r = r.unflatten(2, content.shape[2:])
        return r

    def read(self, r: Tensor, times: Tensor) -> Tensor:
        """What r (P, features, cells, content) answers times (P, Q): (P, Q, cells, content)."""
        answer: Tensor = self.read_key(self.time(times)).to(r.dtype) @ r.flatten(2)
        answer = answer.unflatten(2, r.shape[2:])
        return answer


def per_cell(r: Tensor) -> Tensor:
    """r (P, features, cells, content) as (P, cells, features * content)."""
    return r.transpose(1, 2).flatten(2)


class ContextCells(nn.Module):
    """Features of the cells of a scene: from r, and from the still picture and the latest frame."""

    positions: Tensor

    def __init__(self, channels: int, image: int, grid: Grid, config: CopyingConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("positions", cell_positions(grid.rows, grid.columns), persistent=False)
        self.from_memory = nn.Linear(config.key_features * config.content, width)
        self.from_position = nn.Linear(self.positions.shape[1], width)
        self.stem = Stem(channels + image, grid.side, width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), perceptron(width, 2 * width, width))
        self.block = Block(width, config.heads)

    def forward(self, r: Tensor, still: Tensor, latest: Tensor) -> Tensor:
        """Features (B, cells, width).

        Args:
            r: (B, features, cells, content).
            still: (B, image, H, W).
            latest: (B, channels, H, W), the latest frame and planes of its vectors.
        """
        pictures = self.stem(torch.cat([still, latest], 1))
        x = self.from_memory(per_cell(r)) + self.from_position(self.positions) + pictures
        cells: Tensor = self.block(x + self.perceptron(x))
        return cells
