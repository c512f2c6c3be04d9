"""Rays, projections and the grid of space, of a camera whose intrinsics are known.

Space is a grid of cells over the camera's region; what lies outside is pulled in, so that far walls
have coarse cells (the contraction of Mip-NeRF 360, Barron et al. 2022, along each axis).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodel.common.camera import Camera, Cameras
from worldmodel.models.jumpy.views.config import ViewsConfig

SQUEEZE = 0.25
"""Outside of the region a length counts for so much of what it does inside."""
MARGIN = 0.7
"""Of the grid, in half sides of the region: it reaches 1 + MARGIN / SQUEEZE half sides."""
BEHIND = 1e-2
"""In units: points of less depth count as behind the camera."""


class Projection(NamedTuple):
    """Points as P cameras see them.

    Attributes:
        image: (P, n, 2), x and y in [-1, 1] from edge to edge of the image.
        inside: bool (P, n), whether the image shows the point, if nothing hides it.
        depth: (P, n), along the optical axis, in units.
        direction: (P, n, 3), unit vectors from the camera.
    """

    image: Tensor
    inside: Tensor
    depth: Tensor
    direction: Tensor


class Space(nn.Module):
    """The region of a camera's scenes as a grid of cells, and rays through images of one size.

    Lengths inside of models are in units of the region's longest half side.

    Attributes:
        shape: cells along z, y and x, all even.
        unit: length of a unit in the poses' units.
        centres: (cells, 3), in the poses' units.
        depths: (samples,), along each ray, in the poses' units.
        lengths: (samples,), from each depth to the next.
    """

    centres: Tensor
    depths: Tensor
    lengths: Tensor
    middle: Tensor
    extent: Tensor
    reach: Tensor

    def __init__(self, camera: Camera, height: int, width: int, config: ViewsConfig) -> None:
        super().__init__()
        sides = [(high - low) / 2 for low, high in zip(*camera.region, strict=True)]
        self.camera, self.unit = camera, max(sides)
        cells = [max(2, 2 * round(config.cells * side / self.unit / 2)) for side in sides]
        self.shape = (cells[2], cells[1], cells[0])
        reach = math.tan(camera.field_of_view / 2) * torch.tensor([width / height, 1.0])
        ratio = (camera.far / camera.near) ** (1 / (config.samples - 1))
        depths = camera.near * ratio ** torch.arange(config.samples)
        constants = {
            "middle": torch.tensor(camera.region).mean(0),
            "extent": torch.tensor(sides),
            "reach": reach,
            "depths": depths,
            "lengths": torch.cat([depths.diff(), depths[-1:]]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.float(), persistent=False)
        self.register_buffer("centres", self._centres(), persistent=False)

    def contract(self, points: Tensor) -> Tensor:
        """Points (..., 3) in the grid, which reaches from -1 to 1 along each axis."""
        x = (points - self.middle) / self.extent
        far = x.abs()
        x = torch.where(far < 1, x, x.sign() * (1 + (far - 1) * SQUEEZE))
        return x / (1 + MARGIN)

    def _centres(self) -> Tensor:
        axes = [((torch.arange(n) + 0.5) / n * 2 - 1) * (1 + MARGIN) for n in self.shape]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        points = torch.stack([x, y, z], -1).flatten(0, 2)
        far = points.abs()
        points = torch.where(far < 1, points, points.sign() * (1 + (far - 1) / SQUEEZE))
        return points * self.extent + self.middle

    def directions(self, cameras: Cameras, rows: Tensor, columns: Tensor) -> Tensor:
        """Rays (P, h, w, 3) of depth 1, in the world.

        Args:
            cameras: P of them.
            rows: (P, h), y of the rays in the image, in [-1, 1] from edge to edge.
            columns: (P, w), likewise x.
        """
        right, down, forward = (axis[:, None, None] for axis in cameras.axes.unbind(-2))
        x = (columns * self.reach[0])[:, None, :, None]
        y = (rows * self.reach[1])[:, :, None, None]
        return forward + x * right + y * down

    def project(self, cameras: Cameras, points: Tensor) -> Projection:
        """Points (P, n, 3), or (1, n, 3), as P cameras see them."""
        offset = points - cameras.position[:, None]
        aside, below, depth = (
            (offset * axis[:, None]).sum(-1) for axis in cameras.axes.unbind(-2)
        )  # no matrix product: it would be in bf16
        depth = depth / self.unit
        ahead = depth.clamp_min(BEHIND) * self.unit
        image = torch.stack([aside / ahead, below / ahead], -1) / self.reach
        inside = (image.abs().amax(-1) < 1) & (depth > BEHIND)
        direction = offset / offset.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return Projection(image.clamp(-2, 2), inside, depth, direction)

    def centre_of_region(self, cameras: Cameras) -> Tensor:
        """Where in the image (P, 2) P cameras see the region's middle."""
        return self.project(cameras, self.middle.expand(len(cameras.position), 1, 3)).image[:, 0]

    def ring(self, count: int) -> Cameras:
        """Cameras all around the region, at the middle of the depths, that look at its middle."""
        angle = torch.arange(count, device=self.middle.device) * (2 * math.pi / count)
        distance = (self.camera.near + self.camera.far) / 2
        cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
        position = self.middle + distance * torch.stack([cos, sin, none], -1)
        right, down = torch.stack([-sin, cos, none], -1), torch.stack([none, none, none - 1], -1)
        forward = torch.stack([-cos, -sin, none], -1)
        return Cameras(position, torch.stack([right, down, forward], -2))

    def distance(self, first: Cameras, second: Cameras) -> Tensor:
        """How far apart cameras (..., n) and (..., m) are, (..., n, m): by how much they stand
        apart, in units, and by how much they look in other directions.
        """
        apart = first.position.unsqueeze(-2) - second.position.unsqueeze(-3)
        turned = first.forward.unsqueeze(-2) - second.forward.unsqueeze(-3)
        distance: Tensor = apart.norm(dim=-1) / self.unit + turned.norm(dim=-1)
        return distance


def pixel_centres(count: int, device: torch.device) -> Tensor:
    """(count,): centres of that many pixels along an image, in [-1, 1] from edge to edge."""
    return (torch.arange(count, device=device) + 0.5) / count * 2 - 1
