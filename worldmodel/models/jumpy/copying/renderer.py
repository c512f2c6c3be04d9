"""A renderer that copies pixels of the context, and paints only where it must."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.config import CopyingConfig
from worldmodel.models.jumpy.keys import TimeFeatures
from worldmodel.models.layers.transformer import perceptron

SHUT = -2.0
"""Logit of an untrained gate: at first most of a frame is copied."""


class Sources(NamedTuple):
    """What is copied from, of B scenes.

    Attributes:
        still: (B, C, H, W), what stands still.
        latest: (B, C, H, W), the latest frame, of which what moves is copied.
        mover: (B, 1, H, W) in [0, 1], where that is.
    """

    still: Tensor
    latest: Tensor
    mover: Tensor


class StillPicture(nn.Module):
    """Weighs the frames of a context per pixel, by what they show and how old they are."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.weigh = nn.Sequential(
            nn.Conv2d(2 * channels + 1, 16, 3, padding=1), nn.GELU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, frames: Tensor, ages: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W) from frames (B, M, C, H, W), ``ages`` in steps (B, M), and mask (B, M)."""
        if mask.shape[1] == 1 and not torch.is_grad_enabled():  # in training all weights count
            return frames[:, 0]
        valid = mask[..., None, None, None]
        mean = (frames * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True)
        age = (ages / self.window)[..., None, None, None].expand_as(frames[:, :, :1])
        pictures = torch.cat([frames, frames - mean, age], 2).flatten(0, 1)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        weight = self.weigh(pictures).float().unflatten(0, mask.shape)
        still: Tensor = (weight.masked_fill(~valid, -torch.inf).softmax(1) * frames).sum(1)
        return still


class MoverMask(nn.Module):
    """Where in the latest frame something is that moves."""

    def __init__(self, channels: int, grid: Grid, config: CopyingConfig) -> None:
        super().__init__()
        self.grid, self.from_cells = grid, nn.Linear(config.width, 8)
        last = nn.Conv2d(24, 1, 3, padding=1)
        assert last.bias is not None
        nn.init.constant_(last.bias, SHUT)
        self.mark = nn.Sequential(
            nn.Conv2d(2 * channels + 8, 24, 3, padding=1), nn.GELU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.GELU(), last,
        )  # fmt: skip

    def forward(self, cells: Tensor, still: Tensor, latest: Tensor) -> Tensor:
        """(B, 1, H, W) of cells (B, cells, width) and two pictures (B, C, H, W)."""
        wide = self.grid.picture(self.from_cells(cells))
        wide = wide.repeat_interleave(self.grid.side, 2).repeat_interleave(self.grid.side, 3)
        pictures = torch.cat([latest, latest - still, wide], 1)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        mover: Tensor = self.mark(pictures).float().sigmoid()
        return mover


class CopyingRenderer(nn.Module):
    """Frames of moments: the still picture, painted over where a gate opens, and over that what
    moves, copied from the latest frame to where a moment's features say.
    """

    centres: Tensor

    def __init__(self, channels: int, grid: Grid, window: int, config: CopyingConfig) -> None:
        super().__init__()
        width, self.grid, self.channels = config.width, grid, channels
        y, x = torch.meshgrid(
            (torch.arange(grid.height) + 0.5) / grid.height,
            (torch.arange(grid.width) + 0.5) / grid.width,
            indexing="ij",
        )
        self.register_buffer("centres", torch.stack([x, y], -1), persistent=False)
        self.time = TimeFeatures(window, config.time_bands)
        self.from_time = perceptron(self.time.features, width, width)
        self.from_read = nn.Linear(config.content, width)
        self.norm = nn.LayerNorm(width)
        self.scale, self.shift = nn.Linear(width, width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.LayerNorm(width), perceptron(width, 2 * width, width))
        self.paint = _painter(width, channels + 1, grid.side)
        self.place, self.cover = nn.Linear(width, 2), nn.Linear(width, 1)
        nn.init.constant_(self.cover.bias, 1.0)

    def forward(
        self, sources: Sources, cells: Tensor, read: Tensor, times: Tensor, moments: Tensor
    ) -> Tensor:
        """Frames (P, Q, C, H, W) of Q moments of P = B * S worlds.

        Args:
            sources: of the B scenes.
            cells: (P, cells, width), of the worlds.
            read: (P, Q, cells, content), what the memory answers the times.
            times: int64 (P, Q).
            moments: (P, Q, width), of ``PlanTransformer``.
        """
        know = self.norm(moments).unsqueeze(2)
        now = self.from_time(self.time(times)).unsqueeze(2)
        x = self.from_read(read) + cells.unsqueeze(1) + now
        x = (x * (1 + self.scale(know)) + self.shift(know)).flatten(0, 1)
        x = self.grid.picture(x + self.perceptron(x))
        painted = self.paint(x).float().unflatten(0, times.shape)
        colours, gate = painted.split([self.channels, 1], 2)
        gate = (gate + SHUT).sigmoid()
        worlds = len(cells) // len(sources.still)
        still = sources.still.repeat_interleave(worlds, 0).unsqueeze(1)
        frames = still * (1 - gate) + colours * gate
        moved, cover = self._move(sources, moments, worlds)
        whole: Tensor = frames * (1 - cover) + moved * cover
        return whole

    def _move(self, sources: Sources, moments: Tensor, worlds: int) -> tuple[Tensor, Tensor]:
        """What moves, (P, Q, C, H, W), and how much of each pixel it covers, (P, Q, 1, H, W)."""
        mover = sources.mover
        weight = mover.flatten(2).transpose(1, 2)  # (B, H * W, 1)
        was = (weight * self.centres.flatten(0, 1)).sum(1) / (weight.sum(1) + 1e-3)
        place = (2 * self.place(moments).float()).sigmoid().unflatten(0, (-1, worlds)).flatten(1, 2)
        shift = was[:, None] - place  # (B, worlds * Q, 2)
        height, width = self.centres.shape[:2]
        where = 2 * (self.centres + shift[:, :, None, None]) - 1
        source = torch.cat([sources.latest, mover], 1)
        moved = grid_sample(
            source.float(), where.flatten(1, 2), padding_mode="zeros", align_corners=False
        )
        moved = moved.unflatten(2, (worlds, moments.shape[1], height))
        moved = moved.permute(0, 2, 3, 1, 4, 5).flatten(0, 1)
        colours, cover = moved.split([self.channels, 1], 2)
        return colours, cover * self.cover(moments).float().sigmoid()[..., None, None]


def _painter(width: int, channels: int, side: int) -> nn.Sequential:
    """Cells (P, width, rows, columns) to pictures: each stage doubles the sides."""
    stages, now = round(math.log2(side)), 48
    layers: list[nn.Module] = [
        nn.Conv2d(width, 96, 3, padding=1), nn.GELU(),
        nn.Conv2d(96, 4 * now, 3, padding=1), nn.PixelShuffle(2), nn.GELU(),
    ]  # fmt: skip
    for _ in range(stages - 2):
        layers += [nn.Conv2d(now, 4 * 24, 3, padding=1), nn.PixelShuffle(2), nn.GELU()]
        now = 24
    return nn.Sequential(*layers, nn.Conv2d(now, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
