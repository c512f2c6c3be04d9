"""A memory in space: features of views, put where their rays pass and summed over views."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample, interpolate

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.geometry import Space

STRIDE = 2
"""Pixels from one feature of a view to the next, each way."""
COMPOSITED = 8
"""Numbers of each cell that are averaged along a ray, by how much of it ends there."""
EMPTY = -1.5
"""Of a cell's density before training: space is thin at first, so that rays reach all of it."""


class Views(NamedTuple):
    """What n views of B scenes show.

    Attributes:
        features: (B, n, features, h, w).
        cameras: (B, n) of them.
        mask: bool (B, n), True where a view counts.
        imagined: bool (n,), True for anchors.
    """

    features: Tensor
    cameras: Cameras
    mask: Tensor
    imagined: Tensor

    def join(self, other: Views) -> Views:
        """The views of both."""
        pairs = zip(self.cameras, other.cameras, strict=True)
        return Views(
            torch.cat([self.features, other.features], 1),
            Cameras(*(torch.cat(pair, 1) for pair in pairs)),
            torch.cat([self.mask, other.mask], 1),
            torch.cat([self.imagined, other.imagined]),
        )

    def repeat(self, times: int) -> Views:
        """Each scene so many times: B * times."""
        features, mask = (x.repeat_interleave(times, 0) for x in (self.features, self.mask))
        cameras = Cameras(*(x.repeat_interleave(times, 0) for x in self.cameras))
        return Views(features, cameras, mask, self.imagined)


class ResidualBlock(nn.Module):
    """Two convolutions, in two or three dimensions, added to their input."""

    def __init__(self, width: int, dimensions: int = 2) -> None:
        super().__init__()
        layer = nn.Conv2d if dimensions == 2 else nn.Conv3d
        last = 3 if dimensions == 2 else 1
        self.first = layer(width, width, 3, padding=1)
        self.second = layer(width, width, last, padding=last // 2)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        changed: Tensor = x + self.second(gelu(self.first(gelu(x))))
        return changed


class ViewEncoder(nn.Module):
    """Frames to features at half their resolution."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, features, 4, STRIDE, 1),
            ResidualBlock(features),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, n, C, H, W) to (B, n, features, H / 2, W / 2)."""
        flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.layers(flat).unflatten(0, frames.shape[:2])
        return features


class SpaceMemory(nn.Module):
    """r = sum_j M_theta(v_j, x_j): each cell takes a view's features where the view shows it.

    A cell that a view does not show takes nothing from it. Whether it is hidden behind something
    else is not known here: the direction and distance of the camera scale and shift the features,
    and ``Volume`` reads what they have in common.
    """

    def __init__(self, space: Space, config: ViewsConfig) -> None:
        super().__init__()
        self.space, width = space, config.memory
        self.lift = nn.Conv2d(config.features, width, 1)
        self.gate = nn.Sequential(nn.Conv1d(7, 24, 1), nn.GELU(), nn.Conv1d(24, 2 * width, 1))

    def forward(self, views: Views) -> Tensor:
        """r, float32 (B, memory + 1, cells); the last of the numbers counts the views."""
        batch, count = views.mask.shape
        cameras, centres = views.cameras.flat(), self.space.centres[None]
        points = self.space.project(cameras, centres)
        features = self.lift(views.features.flatten(0, 1)).float()
        values = grid_sample(
            features, points.image[:, None], padding_mode="border", align_corners=False
        )[:, :, 0]
        away = (centres - cameras.position[:, None]).norm(dim=-1, keepdim=True) / self.space.unit
        where = self.space.contract(centres).expand(len(away), -1, -1)
        facts = torch.cat([points.direction, away / 4 - 1, where], -1).transpose(1, 2)
        scale, shift = self.gate(facts).chunk(2, 1)
        there = (points.inside & views.mask.flatten()[:, None]).unsqueeze(1)
        gated = (values.to(scale.dtype) * (1 + scale) + shift) * there
        sums = [x.unflatten(0, (batch, count)).sum(1, dtype=torch.float32) for x in (gated, there)]
        return torch.cat(sums, 1)


class Volume(nn.Module):
    """r to what rays meet: density, numbers to be composited and features of surfaces."""

    def __init__(self, space: Space, config: ViewsConfig) -> None:
        super().__init__()
        width, self.shape = config.content, space.shape
        wide = width + width // 2
        self.enter = nn.Sequential(
            nn.Conv3d(config.memory + 1, width, 1), nn.GELU(), nn.Conv3d(width, width, 3, padding=1)
        )
        self.down = nn.Conv3d(width, wide, 2, 2)
        self.middle = nn.Sequential(*(ResidualBlock(wide, 3) for _ in range(3)))
        self.up = nn.Conv3d(wide, width, 1)
        self.last = ResidualBlock(width, 3)
        self.out = nn.Conv3d(width, 1 + COMPOSITED + width, 1)
        assert self.out.bias is not None
        with torch.no_grad():
            self.out.bias[0] = EMPTY

    def forward(self, r: Tensor) -> Tensor:
        """r (B, memory + 1, cells) to (B, 1 + COMPOSITED + content, \\*shape)."""
        count = torch.ones(r.shape[1], 1, device=r.device)
        count[-1] = 0.3  # views, up to ten or so, to a scale like the others'
        x = (r * count).unflatten(2, self.shape)
        x = self.enter(x.contiguous(memory_format=torch.channels_last_3d))
        x = x + interpolate(self.up(self.middle(self.down(x))), scale_factor=2)
        volume: Tensor = self.out(self.last(x))
        return volume
