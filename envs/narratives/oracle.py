"""What is true and what is possible: best and random returns, and frames read back into facts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from envs.narratives.randomness import Split
from envs.narratives.shapes import COLOUR_NAMES, KIND_NAMES, PALETTE, RADII, render
from envs.narratives.story import Story, StoryState
from envs.narratives.stream import SceneStream
from envs.narratives.traveling_salesman import ACTOR, CITIES, LEG_STEPS, TravelingSalesmanState

ABSENT = -1
"""What ``visited_city`` says when the actor is on no city."""

_SOFTENING = (0, 1, 3)
"""Blur passes before each comparison; they add up (0, 1 and 4 in all)."""


def best_tour(state: TravelingSalesmanState, max_steps: int = 40) -> tuple[Tensor, Tensor]:
    """The best tour of an agent from where the actor is, by trying all.

    Exact when the actor stands on a city or has not moved yet. The best tour may leave a city out:
    where the way costs more than the visit brings, or where steps run out.

    Args:
        state: controlled scenes, B of them.
        max_steps: the cut-off of the environment.

    Returns:
        Returns to go ``(B,)`` float32, and tours ``(B, 4)`` int64: the cities to head for, five
        steps each, filled up with ``ABSENT``; after the last, stay (head for it again).
    """
    batch, device = state.scene_ids.shape[0], state.scene_ids.device
    rows = torch.arange(batch, device=device)
    best = torch.zeros(batch, device=device)
    tours = torch.full((batch, CITIES), ABSENT, device=device)
    for order in itertools.permutations(range(CITIES)):
        here, total = state.positions[:, ACTOR], torch.zeros(batch, device=device)
        steps = state.steps.clone()
        tour, legs = torch.full_like(tours, ABSENT), torch.zeros_like(rows)
        for city in order:
            there = state.positions[:, city]
            steps = steps + LEG_STEPS * ~state.visited[:, city]
            going = ~state.visited[:, city] & (steps <= max_steps)
            total = total + torch.where(going, 1 - (there - here).square().sum(-1).sqrt(), 0.0)
            here = torch.where(going[:, None], there, here)
            tour[rows[going], legs[going]] = city
            legs = legs + going
            better = going & (total > best)
            best = torch.where(better, total, best)
            tours = torch.where(better[:, None], tour, tours)
    return best, tours


def best_return(state: TravelingSalesmanState, max_steps: int = 40) -> Tensor:
    """The highest return ``(B,)`` float32 that an agent can still get; see :func:`best_tour`."""
    return best_tour(state, max_steps)[0]


def random_return(
    source: Story[StoryState] | str,
    *,
    hold: int = 1,
    gamma: float = 1.0,
    scenes: int = 1024,
    split: Split = "test",
    seed: int = 0,
) -> tuple[float, float]:
    """Mean return of uniformly random actions, each held for ``hold`` steps, from simulation.

    Args:
        source: a story or the id of an environment, as for ``SceneStream``.
        hold: steps for which an action is kept.
        gamma: discount per step.
        scenes: number of scenes to play, at least 2.
        split: the scenes' split.
        seed: of the scenes and actions.

    Returns:
        The mean and its standard error.
    """
    if scenes < 2:
        raise ValueError(f"scenes must be at least 2 for a standard error, got {scenes}")
    rewards = SceneStream(source, scenes, split=split, seed=seed, hold=hold).batch(0).rewards
    discounts = gamma ** torch.arange(rewards.shape[1], dtype=torch.float64)
    returns = (rewards * discounts).sum(1)
    return float(returns.mean()), float(returns.std() / math.sqrt(scenes))


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

    found: list[list[Shape]] = [[] for _ in frames]
    for frame, *shape in zip(
        *(v.tolist() for v in (index, colours, kinds, sizes, x, y)), strict=True
    ):
        found[frame].append(Shape(*shape))
    return found


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
        drawn = render(positions[:, None, None], white, kinds, sizes, size)[:, 0, :, :, 0] / 255
        errors.append((drawn - parts).square().sum((1, 2)))
    best = torch.stack(errors).argmin(0)
    return best // len(RADII), best % len(RADII)


def visited_city(frames: Tensor, facts: TravelingSalesmanState) -> Tensor:
    """On which city the actor stands in (generated) frames: analysis by synthesis.

    Each frame is compared with the renderer's own drawings of the actor on city 0, 1, 2, 3 and of
    the cities alone; the nearest in squared error wins. Generated frames may be soft, so each
    drawing is tried sharp and softened to two degrees. An actor that vanishes on a city of its own
    colour (possible only if nature drew the colours) counts as standing there.

    Args:
        frames: ``(B, n, size, size, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them, as ``story.begin(scene_ids)`` or ``SceneBatch.start()`` give.

    Returns:
        ``(B, n)`` int64: 0-3, or -1 (``ABSENT``) where the actor is on no city.

    Raises:
        ValueError: wrong shape.
    """
    batch = facts.scene_ids.shape[0]
    if frames.ndim != 5 or frames.shape[0] != batch or frames.shape[2] != frames.shape[3]:
        raise ValueError(f"frames must be ({batch}, n, size, size, 3), got {tuple(frames.shape)}")
    places = facts.positions[:, None].repeat(1, CITIES + 1, 1, 1)
    places[:, :CITIES, ACTOR] = facts.positions[:, :CITIES]
    places[:, CITIES, ACTOR] = -10.0  # out of sight
    cast = (facts.colours[:, None], facts.kinds[:, None], facts.sizes[:, None])
    drawn = render(places, *cast, frames.shape[2]).to(torch.float32) / 255  # (B, 5, H, W, 3)
    seen = frames.to(torch.float32) / (1 if frames.is_floating_point() else 255)
    errors = seen.new_full((*frames.shape[:2], CITIES + 1), torch.inf)
    for passes in _SOFTENING:
        for _ in range(passes):
            drawn = _softened(drawn)
        for h in range(CITIES + 1):
            error = (seen - drawn[:, None, h]).square().sum((2, 3, 4))
            errors[..., h] = torch.minimum(errors[..., h], error)
    nearest, city = errors[..., :CITIES].min(-1)
    return torch.where(nearest <= errors[..., CITIES], city, ABSENT)


def _softened(frames: Tensor) -> Tensor:
    """Blur (B, n, H, W, 3) with the kernel 1, 2, 1 along rows and columns, black around."""
    for row_pad, dim in (((0, 0, 0, 0, 1, 1), 2), ((0, 0, 1, 1), 3)):
        padded, length = pad(frames, row_pad), frames.shape[dim]
        frames = (
            padded.narrow(dim, 0, length) / 4
            + padded.narrow(dim, 1, length) / 2
            + padded.narrow(dim, 2, length) / 4
        )
    return frames


def coherent_story(visits: Tensor) -> Tensor:
    """Whether four visits ``(B, 4)`` int64 are each city once: ``(B,)`` bool."""
    if visits.ndim != 2 or visits.shape[1] != CITIES:
        raise ValueError(f"visits must be (B, {CITIES}), got {tuple(visits.shape)}")
    return (visits.sort(dim=1).values == torch.arange(CITIES, device=visits.device)).all(dim=1)
