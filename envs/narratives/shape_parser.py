"""Shapes read off frames, from pixels alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from envs.narratives.shapes import COLOUR_NAMES, KIND_NAMES, PALETTE, RADII, render


@dataclass(frozen=True)
class Shape:
    """A shape as read from pixels: indices as in ``shapes``, centre in canvas units."""

    colour: int
    kind: int
    size: int
    x: float
    y: float


def read_frame(frames: Tensor) -> list[list[Shape]]:
    """Read the shapes off frames, from pixels alone.

    Meant for frames whose shapes do not overlap; of overlapping ones the visible parts are read as
    if they were whole.

    Args:
        frames: ``(B, H, W, 3)`` uint8, H = W.

    Returns:
        For each frame its shapes, in no particular order.

    Raises:
        TypeError: ``frames`` are not uint8.
        ValueError: ``frames`` have another shape.
    """
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames must be uint8, got {frames.dtype}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[1] != frames.shape[2]:
        raise ValueError(f"frames must be (B, size, size, 3), got {tuple(frames.shape)}")
    size = frames.shape[1]
    labels, coverage = _unmix(frames.to(torch.float32))
    regions = _regions(torch.where(coverage > 0.5, labels, -1)).flatten(1)  # (B, H * W)
    numbers = torch.arange(1, size * size + 1, device=frames.device)
    index, root = torch.nonzero(regions == numbers, as_tuple=True)  # one for each shape

    whole = _with_edge(regions.reshape(labels.shape), labels).flatten(1)
    weight = coverage.flatten(1)[index] * (whole[index] == root[:, None] + 1)  # (S, H * W)
    centres = (torch.arange(size, device=frames.device) + 0.5) / size
    area = weight.sum(1)
    x = (weight * centres.repeat(size)).sum(1) / area
    y = (weight * centres.repeat_interleave(size)).sum(1) / area
    kinds, sizes = _fit(weight.reshape(-1, size, size), torch.stack([x, y], 1), size)
    colours = labels.flatten(1)[index, root]

    shapes: list[list[Shape]] = [[] for _ in frames]
    columns = (values.tolist() for values in (index, colours, kinds, sizes, x, y))
    for frame, *shape in zip(*columns, strict=True):
        shapes[frame].append(Shape(*shape))
    return shapes


def _unmix(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Which palette colour a pixel (.., 3) is a share of, and which share: two (..) tensors."""
    palette = torch.tensor(PALETTE, dtype=torch.float32, device=pixels.device)
    along, power = pixels @ palette.T, palette.square().sum(1)  # (.., 12)
    share = (along / power).clamp(0.0, 1.0)
    labels = (share * (share * power - 2 * along)).argmin(-1)  # the error, less |pixel|^2
    return labels, share.gather(-1, labels[..., None])[..., 0]


def _neighbours(image: Tensor, fill: int, offsets: Sequence[tuple[int, int]]) -> list[Tensor]:
    """What lies at each offset (rows, columns; -1, 0 or 1) of every pixel of (B, H, W)."""
    _, height, width = image.shape
    padded = pad(image, (1, 1, 1, 1), value=fill)
    return [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in offsets]


def _regions(labels: Tensor) -> Tensor:
    """4-connected regions of equal label in (B, H, W), -1 being none: (B, H, W) int64.

    A region's number is the greatest index of its pixels plus one; 0 elsewhere.
    """
    offsets = ((0, 1), (0, -1), (1, 0), (-1, 0))
    same = [other == labels for other in _neighbours(labels, -1, offsets)]
    numbers = torch.arange(1, labels[0].numel() + 1, device=labels.device).reshape(labels[0].shape)
    regions = numbers * (labels >= 0)
    while True:
        before = regions
        for other, alike in zip(_neighbours(before, 0, offsets), same, strict=True):
            regions = torch.maximum(regions, other * alike)
        if torch.equal(regions, before):
            return regions


def _with_edge(regions: Tensor, labels: Tensor) -> Tensor:
    """Regions (B, H, W) with the soft edge, a pixel wide, that has their label."""
    offsets = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    near = torch.zeros_like(regions)
    pairs = zip(_neighbours(regions, 0, offsets), _neighbours(labels, -1, offsets), strict=True)
    for region, label in pairs:
        near = torch.maximum(near, region * (label == labels))
    return torch.where(regions > 0, regions, near)


def _fit(parts: Tensor, positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Kind and size whose drawing is nearest: coverage (S, H, W), centres (S, 2) -> two (S,)."""
    errors = []
    for kind, grade in itertools.product(range(len(KIND_NAMES)), range(len(RADII))):
        white, kinds, sizes = (
            torch.full((len(parts), 1, 1), value, device=parts.device)
            for value in (COLOUR_NAMES.index("white"), kind, grade)
        )
        template = render(positions[:, None, None], white, kinds, sizes, size)[:, 0, :, :, 0] / 255
        errors.append((template - parts).square().sum((1, 2)))
    best = torch.stack(errors).argmin(0)
    return best // len(RADII), best % len(RADII)
