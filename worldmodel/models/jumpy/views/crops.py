"""Squares of target views: a training step follows the rays of these only."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.common.camera import Cameras
from worldmodel.models.jumpy.views.geometry import Space, pixel_centres
from worldmodel.models.jumpy.views.memory import STRIDE

MIDDLE = 0.7
"""Share of the squares that lie where the region's middle is."""
SHIFT = 2
"""Rays by which these are moved at most, each way."""


class Crops(NamedTuple):
    """A square of each of (B, k) frames, of h x h rays.

    Attributes:
        rows, columns: (B, k, h), of the rays in the images, in [-1, 1] from edge to edge.
        frames: float32 (B, k, C, STRIDE * h, STRIDE * h).
    """

    rows: Tensor
    columns: Tensor
    frames: Tensor


def draw_crops(
    space: Space,
    cameras: Cameras,
    frames: Tensor,
    side: int,
    generator: torch.Generator | None,
) -> Crops:
    """Draw squares, most of them where the region's middle is in the image.

    Args:
        space: of the camera.
        cameras: (B, k), of the frames.
        frames: (B, k, C, H, W).
        side: of the squares, in pixels; less where the frames are smaller.
        generator: on the frames' device.
    """
    batch, count = frames.shape[:2]
    device, sides = frames.device, torch.tensor(frames.shape[3:], device=frames.device)
    length = min(side, *frames.shape[3:]) // STRIDE
    free = sides // STRIDE - length
    shape = (batch, count, 2)
    anywhere = torch.rand(shape, generator=generator, device=device) * (free + 1)
    shift = (torch.rand(shape, generator=generator, device=device) * 2 - 1) * (SHIFT + 0.5)
    middle = space.centre_of_region(cameras.flat()).flip(-1).unflatten(0, (batch, count))
    middle = (middle + 1) / 2 * (sides // STRIDE) - length / 2 + shift.round()
    chance = torch.rand(batch, count, 1, generator=generator, device=device)
    start = torch.where(chance < MIDDLE, middle.round(), anywhere.floor()).long()
    start = torch.minimum(start.clamp_min(0), free)  # (B, k, 2), row and column
    index = start[..., None] + torch.arange(length, device=device)
    rows, columns = index.unbind(2)
    pixels = [
        (STRIDE * line[..., None] + torch.arange(STRIDE, device=device)).flatten(2)
        for line in (rows, columns)
    ]
    scenes = torch.arange(batch, device=device)[:, None, None, None]
    views = torch.arange(count, device=device)[:, None, None]
    cut = frames.movedim(2, -1)[scenes, views, pixels[0][..., None], pixels[1][:, :, None]]
    height, width = (pixel_centres(int(n) // STRIDE, device) for n in frames.shape[3:])
    return Crops(height[rows], width[columns], cut.movedim(-1, 2))
