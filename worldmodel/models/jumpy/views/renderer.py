"""A renderer that follows the rays of a view, and copies from other views what they meet.

Along each ray densities say where it ends (volume rendering, as in NeRF: Mildenhall et al. 2020,
section 4). The point at the expected depth is looked up in every view of the context: features of
the views there, weighed by attention, are what the last convolutions paint from (as in IBRNet:
Wang et al. 2021).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample, normalize, softplus

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.views.config import ViewsConfig
from worldmodel.models.jumpy.views.geometry import Space, pixel_centres
from worldmodel.models.jumpy.views.memory import COMPOSITED, STRIDE, ResidualBlock, Views

OPAQUE = 20.0
"""Optical depth behind the last sample of a ray: all rays end."""
HIDDEN = -20.0
"""Added to the logit of a view that does not show a point."""
SAME_SIDE = 4.0
"""Logit of a view that looks in just the direction of the ray, before training."""


class Surfaces(NamedTuple):
    """What R rays of B scenes meet.

    Attributes:
        features: (B, R, numbers).
        points: float32 (B, R, 3), at the expected depth, in the world.
        directions: float32 (B, R, 3), unit vectors.
    """

    features: Tensor
    points: Tensor
    directions: Tensor


class RayRenderer(nn.Module):
    """Frames of views of a volume.

    Attributes:
        numbers: of a ray: what ``meet`` and ``copy`` return together.
    """

    def __init__(self, channels: int, space: Space, config: ViewsConfig) -> None:
        super().__init__()
        self.space, features = space, config.features
        met = COMPOSITED + config.content + 5
        self.numbers = met + features
        self.query, self.key = nn.Linear(met, 32), nn.Linear(features + 7, 32)
        self.weigh = nn.Linear(32, 1)
        self.paint = nn.Sequential(
            nn.Conv2d(self.numbers, 64, 3, padding=1), ResidualBlock(64), nn.GELU(),
            nn.Conv2d(64, STRIDE * STRIDE * channels, 3, padding=1), nn.PixelShuffle(STRIDE),
        )  # fmt: skip

    def forward(
        self, volume: Tensor, views: Views, cameras: Cameras, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Frames (B, k, C, STRIDE * h, STRIDE * w); each ray is of STRIDE x STRIDE pixels.

        Args:
            volume: (B, numbers, \\*shape), of B scenes.
            views: to copy from.
            cameras: (B, k), of the frames.
            rows, columns: (B, k, h) and (B, k, w), of the rays in the images, as for
                ``Space.directions``.
        """
        rays = self.rays(volume, views, cameras, rows, columns)
        frames: Tensor = self.paint(rays.flatten(0, 1)).unflatten(0, rows.shape[:2])
        return frames.float()

    def whole(self, cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of height x width rays that cover images of (B, k) cameras."""
        lead, device = cameras.position.shape[:2], cameras.position.device
        rows, columns = pixel_centres(height, device), pixel_centres(width, device)
        return rows.expand(*lead, -1), columns.expand(*lead, -1)

    def rays(
        self, volume: Tensor, views: Views, cameras: Cameras, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """What rays meet and what is copied there: (B, k, numbers, h, w); as for ``forward``."""
        surfaces = self.meet(volume, cameras, rows, columns)
        copied = self.copy(surfaces, views)
        both = torch.cat([surfaces.features, copied], -1).transpose(1, 2)
        shape = (*rows.shape[1:], columns.shape[-1])  # k, h, w
        rays: Tensor = both.unflatten(2, shape).transpose(1, 2)
        return rays

    def meet(self, volume: Tensor, cameras: Cameras, rows: Tensor, columns: Tensor) -> Surfaces:
        """Follow the rays to where they end; as for ``forward``."""
        space, batch = self.space, len(volume)
        rays = space.directions(cameras.flat(), rows.flatten(0, 1), columns.flatten(0, 1))
        rays = rays.unflatten(0, (batch, -1))  # (B, k, h, w, 3)
        start = cameras.position[:, :, None, None]
        along = start.unsqueeze(-2) + rays.unsqueeze(-2) * space.depths[:, None]
        volume = volume.float()
        density, numbers = self._sample(volume[:, : 1 + COMPOSITED], along.flatten(1, 3)).split(
            [1, COMPOSITED], 1
        )
        thickness = softplus(density) * (space.lengths / space.unit)
        thickness = torch.cat(
            [thickness[..., :-1], torch.full_like(thickness[..., -1:], OPAQUE)], -1
        )
        passed = torch.exp(thickness - thickness.cumsum(-1))
        weight = passed * (1 - torch.exp(-thickness))  # (B, 1, R, samples)
        depth = (weight * space.depths).sum(-1).transpose(1, 2)  # (B, R, 1)
        points = (start + rays * depth.view(*rays.shape[:4], 1)).flatten(1, 3)
        surface = self._sample(volume[:, 1 + COMPOSITED :], points.unsqueeze(2)).squeeze(-1)
        composited = torch.cat([(weight * numbers).sum(-1), surface], 1).transpose(1, 2)
        directions = normalize(rays.flatten(1, 3), dim=-1)
        height = (points[..., 2:] - space.middle[2]) / space.unit
        facts = [composited, depth / space.unit / 4 - 1, directions, height]
        return Surfaces(torch.cat(facts, -1), points, directions)

    def _sample(self, volume: Tensor, points: Tensor) -> Tensor:
        """A volume (B, C, \\*shape) at points (B, R, T, 3): (B, C, R, T)."""
        where = self.space.contract(points).unsqueeze(1)
        values = grid_sample(volume, where, padding_mode="border", align_corners=False)
        return values[:, :, 0]

    def copy(self, surfaces: Surfaces, views: Views) -> Tensor:
        """Features of the views where the surfaces are: (B, R, features)."""
        batch, count = views.mask.shape
        points = surfaces.points.repeat_interleave(count, 0)
        there = self.space.project(views.cameras.flat(), points)
        features = grid_sample(
            views.features.flatten(0, 1).float(), there.image[:, None],
            padding_mode="border", align_corners=False,
        )[:, :, 0].transpose(1, 2).unflatten(0, (batch, count))  # fmt: skip
        inside = there.inside.unflatten(0, (batch, count)).unsqueeze(-1)
        theirs, ours = there.direction.unflatten(0, (batch, count)), surfaces.directions[:, None]
        alike = (theirs * ours).sum(-1, keepdim=True)
        away = there.depth.unflatten(0, (batch, count)).unsqueeze(-1) / 4 - 1
        imagined = views.imagined.float()[None, :, None, None].expand_as(away)
        facts = [features, theirs - ours, alike, inside.float(), away, imagined]
        hidden = self.query(surfaces.features)[:, None] + self.key(torch.cat(facts, -1))
        logit = self.weigh(gelu(hidden)).float() + SAME_SIDE * alike + HIDDEN * ~inside
        logit = logit.masked_fill(~views.mask[:, :, None, None], -torch.inf)
        copied: Tensor = (logit.softmax(1) * features).sum(1)
        return copied
