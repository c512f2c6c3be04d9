"""Cameras and rays in the frame of a scene.

Axes of a scene: x away from the camera that observes it, z up; the middle is the origin, and the
cube from -1 to 1 holds the objects. Shapes: P pictures, R rays.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from worldmodel.common.camera import Camera, Cameras
from worldmodel.models.jumpy.inferno.config import InfernoConfig
from worldmodel.models.jumpy.views.geometry import pixel_centres

ABOVE = 1.0
"""Where the orthographic camera stands: on the cube's top. It sees down to the bottom."""


LEVEL = 1e-2
"""Rays that fall less, for a depth of 1, count as such that fall by this."""


class Rays(NamedTuple):
    """Rays of P pictures.

    Attributes:
        origins, directions: (P, R, 3); a direction is as long as the ray goes for a depth of 1.
    """

    origins: Tensor
    directions: Tensor


class SceneCamera(nn.Module):
    """Where the camera of a scene stands, and the rays through its pixels.

    Args:
        camera: what is known of it; None for the fixed one of the settings.
        height, width: of its frames.
        config: the fixed camera.

    Attributes:
        near, far: depths between which it sees, in units of the scene.
    """

    reach: Tensor
    middle: Tensor
    position: Tensor
    axes: Tensor

    def __init__(
        self, camera: Camera | None, height: int, width: int, config: InfernoConfig
    ) -> None:
        super().__init__()
        self.known = camera
        self.parallel = camera is None and config.projection == "orthographic"
        self.unit, middle = 1.0, (0.0, 0.0, 0.0)
        self.near, self.far = (0.0, 2 * ABOVE) if self.parallel else (config.near, config.far)
        angle = math.radians(config.field_of_view)
        if camera is not None:
            corners = list(zip(*camera.region, strict=True))
            self.unit = max(high - low for low, high in corners) / 2
            x, y, z = ((high + low) / 2 for low, high in corners)
            middle = (x, y, z)
            self.near, self.far = camera.near / self.unit, camera.far / self.unit
            angle = camera.field_of_view
        if self.parallel:
            reach = [width / max(height, width), height / max(height, width)]
        else:
            reach = [math.tan(angle / 2) * width / height, math.tan(angle / 2)]
        position, axes = _standard(config, self.parallel)
        for name, value in {
            "reach": reach, "middle": middle, "position": position, "axes": axes
        }.items():  # fmt: skip
            self.register_buffer(name, torch.tensor(value), persistent=False)

    def standard(self, count: int) -> Cameras:
        """The fixed camera, for ``count`` pictures."""
        return Cameras(self.position.expand(count, -1), self.axes.expand(count, -1, -1))

    def in_scene(self, poses: Tensor, observer: Tensor) -> Cameras:
        """Known cameras of poses (P, n, pose) in the frames of scenes, (P, n).

        Args:
            poses: in the world.
            observer: (P, pose), of the camera that observed the scene. Its axis to the right is
                level, or nearly: a camera that lies on its side says nothing of where ahead is.
        """
        assert self.known is not None
        position, axes = self.known.read(poses)
        right = normalize(self.known.read(observer).axes[:, 0, :2], dim=-1)
        x, y = -right[:, 1], right[:, 0]  # ahead of the observer, on the floor
        none = torch.zeros_like(x)
        turn = torch.stack(
            [
                torch.stack([x, y, none], -1),
                torch.stack([-y, x, none], -1),
                torch.stack([none, none, none + 1], -1),
            ],
            1,
        )[:, None]

        def turned(vectors: Tensor) -> Tensor:  # no matrix product: it would be in bf16
            return (turn.expand(*vectors.shape[:2], 3, 3) * vectors.unsqueeze(-2)).sum(-1)

        position = turned((position - self.middle) / self.unit)
        return Cameras(position, torch.stack([turned(axis) for axis in axes.unbind(-2)], -2))

    def on_floor(self, cameras: Cameras, image: Tensor) -> Tensor:
        """Points (P, K, 3) of the plane through the scene's middle, in its cube, that P cameras see
        at (P, K, 2), x and y in the image from -1 to 1.

        Where the plane is not in front of the camera it is taken to be far ahead.
        """
        rays = self._through(cameras, image * self.reach)
        fall = (-rays.directions[..., 2:]).clamp_min(LEVEL)
        points = rays.origins + rays.directions * (rays.origins[..., 2:] / fall)
        flat = points[..., :2].clamp(-1, 1)
        return torch.cat([flat, torch.zeros_like(flat[..., :1])], -1)

    def rays(self, cameras: Cameras, height: int, width: int, chosen: Tensor | None = None) -> Rays:
        """Rays through the pixels of P pictures of ``height`` x ``width``, row by row.

        Args:
            cameras: P of them, in the scene's frame.
            height, width: of the pictures.
            chosen: int64 (P, R), some of their pixels; None for all.
        """
        y, x = (pixel_centres(count, self.reach.device) for count in (height, width))
        plane = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
        plane = plane * self.reach  # (R, 2), right and down
        across = plane.expand(len(cameras.position), -1, -1) if chosen is None else plane[chosen]
        return self._through(cameras, across)

    def _through(self, cameras: Cameras, across: Tensor) -> Rays:
        """Rays through points (P, R, 2) of the plane of depth 1."""
        right, down, forward = (axis[:, None] for axis in cameras.axes.unbind(-2))
        aside = across[..., :1] * right + across[..., 1:] * down
        origins = cameras.position[:, None].expand_as(aside)
        if self.parallel:
            return Rays(origins + aside, forward.expand_as(aside))
        return Rays(origins, forward + aside)


def _standard(config: InfernoConfig, parallel: bool) -> tuple[list[float], list[list[float]]]:
    """Position, and axes to the right, down and forward, of the camera of the settings."""
    if parallel:
        return [0.0, 0.0, ABOVE], [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
    up = math.radians(config.elevation)
    cos, sin = math.cos(up), math.sin(up)
    position = [-config.distance * cos, 0.0, config.distance * sin]
    return position, [[0.0, -1.0, 0.0], [-sin, 0.0, -cos], [cos, 0.0, -sin]]
