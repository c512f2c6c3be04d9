"""(Generated) frames of known scenes read back into what happens in them.

All by analysis by synthesis: hypotheses are drawn and compared with the frame, sharp and blurred,
so that a model's blur does not matter (``envs.template_match``). ``frames`` are always
``(B, n, size, size, 3)``, uint8 or floating point in [0, 1]; another shape is a ValueError.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, pad

from envs.narratives.color_reaction import ColorReactionState
from envs.narratives.intercept import InterceptState, ring_cover
from envs.narratives.motion import distances
from envs.narratives.shapes import PALETTE, render
from envs.narratives.story import StoryState
from envs.narratives.traveling_salesman import ABSENT, ACTOR, CITIES, TravelingSalesmanState
from envs.template_match import blur, errors, nearest, white_level

_OUT_OF_SIGHT = -10.0
_ROOM = 0.14  # half the width of the largest shape
_HALO = 5  # pixels
_FAR = 0.5  # squared distance of colours beyond which all are alike


def _unit(frames: Tensor, facts: StoryState) -> Tensor:
    """Frames of these scenes as float32 in [0, 1]."""
    return frames.to(torch.float32) / white_level(frames, len(facts.scene_ids))


def _templates(
    facts: StoryState, positions: Tensor, size: int, colours: Tensor | None = None
) -> Tensor:
    """The scenes drawn with shapes at ``positions (B, h, N, 2)``: float32 (B, h, size, size, 3)."""
    colours = facts.colours[:, None] if colours is None else colours
    frames = render(positions, colours, facts.kinds[:, None], facts.sizes[:, None], size)
    return frames.to(torch.float32) / 255


def _cut_out(masks: Tensor) -> Tensor:
    """The middle of masks (.., size, size), with room for any shape: odd, for convolutions."""
    middle, reach = masks.shape[-1] // 2, math.ceil(_ROOM * masks.shape[-1]) + 2
    part = slice(max(0, middle - reach), middle + reach + 1)
    return masks[..., part, part]


def visited_city(frames: Tensor, facts: TravelingSalesmanState) -> Tensor:
    """On which city the actor stands in frames of B scenes.

    Each frame is compared with drawings of the actor on city 0, 1, 2, 3 and of the cities alone;
    the nearest in squared error wins. An actor that vanishes on a city of its own colour (possible
    only with nature's colours) counts as standing there.

    Args:
        frames: ``(B, n, size, size, 3)``.
        facts: the scenes, as ``story.begin(scene_ids)`` or ``SceneBatch.start()`` give them.

    Returns:
        ``(B, n)`` int64: 0-3, or -1 (``ABSENT``) where the actor is on no city.
    """
    pixels = _unit(frames, facts)
    positions = facts.positions[:, None].repeat(1, CITIES + 1, 1, 1)
    positions[:, :CITIES, ACTOR] = facts.positions[:, :CITIES]
    positions[:, CITIES, ACTOR] = _OUT_OF_SIGHT
    error = errors(pixels, _templates(facts, positions, frames.shape[2]))
    least, city = error[..., :CITIES].min(-1)
    return torch.where(least <= error[..., CITIES], city, ABSENT)


def coherent_story(visits: Tensor) -> Tensor:
    """Whether four visits ``(B, 4)`` int64 are each city once: ``(B,)`` bool."""
    if visits.ndim != 2 or visits.shape[1] != CITIES:
        raise ValueError(f"visits must be (B, {CITIES}), got {tuple(visits.shape)}")
    return (visits.sort(dim=1).values == torch.arange(CITIES, device=visits.device)).all(dim=1)


def reagent_colours(frames: Tensor, facts: ColorReactionState) -> Tensor:
    """Which colour each of R reagents has in frames of Color Reaction.

    Right in 99.6% of agent's and 100% of nature's test frames at 64 pixels, however blurred (3 or 5
    pixels wide); at 32 pixels in 99%, blurred in at least 94%.

    Args:
        frames, facts: as for :func:`visited_city`.

    Returns:
        ``(B, n, R)`` int64, index into ``PALETTE``.
    """
    pixels = _unit(frames, facts)
    reagents, colours = facts.products.shape[1], len(PALETTE)
    positions = facts.positions[:, None].repeat(1, colours, 1, 1)
    positions[:, :, reagents:] = _OUT_OF_SIGHT  # other shapes would cost every colour the same
    best = []
    for reagent in range(reagents):
        worn = facts.colours[:, None].repeat(1, colours, 1)
        worn[:, :, reagent] = torch.arange(colours, device=worn.device)
        best.append(nearest(pixels, _templates(facts, positions, frames.shape[2], worn)))
    return torch.stack(best, -1)


def coherent_reaction(colours: Tensor) -> Tensor:
    """Whether one colour changes once, and stays: ``(B, n)`` int64 over frames to ``(B,)`` bool."""
    if colours.ndim != 2 or colours.shape[1] < 2:
        raise ValueError(f"colours must be (B, n) with n >= 2, got {tuple(colours.shape)}")
    return (colours[:, 1:] != colours[:, :-1]).sum(1) == 1


def locate(frames: Tensor, facts: StoryState) -> Tensor:
    """Where the N known shapes are in frames, to the pixel.

    Each shape is where the frame is nearest to its colour, and around it farthest. Within 1.5
    pixels in DAG Chase's test frames, where shapes often cover each other, sharp / blurred 3 and 5
    pixels wide: agent's .97 / .94, .90 at 64 pixels and .92 / .86, .51 at 32; nature's .90 / .87,
    .82 and .87 / .81, .66.

    Args:
        frames, facts: as for :func:`visited_city`.

    Returns:
        ``(B, n, N, 2)`` float32, centres in canvas units.
    """
    images = _unit(frames, facts)
    size, shapes = frames.shape[2], facts.kinds.shape[1]
    white = torch.full_like(facts.kinds, len(PALETTE) - 1)
    cast = [value.flatten()[:, None, None] for value in (white, facts.kinds, facts.sizes)]
    middle = torch.full((len(cast[0]), 1, 1, 2), (size // 2 + 0.5) / size, device=images.device)
    shapes_alone = render(middle, cast[0], cast[1], cast[2], size)
    masks = _cut_out(shapes_alone[..., 0].to(torch.float32) / 255)  # (B * N, 1, k, k)
    halos = max_pool2d(masks, _HALO, 1, _HALO // 2) - masks
    kernels = masks / masks.sum((2, 3), keepdim=True)
    kernels -= 0.5 * halos / halos.sum((2, 3), keepdim=True)
    kernels = kernels.unflatten(0, facts.kinds.shape)
    rgb = torch.tensor(PALETTE, device=images.device)[facts.colours] / 255  # (B, N, 3)
    centres = []
    for pixels, colour, kernel in zip(images, rgb, kernels, strict=True):
        away = (pixels[:, None] - colour[:, None, None]).square().sum(-1)  # (n, N, size, size)
        away = pad(away.clamp_max_(_FAR), (kernel.shape[-1] // 2,) * 4, value=_FAR)
        best = conv2d(away, kernel, groups=shapes).flatten(2).argmin(-1)
        centres.append(torch.stack([best % size, best // size], -1))
    return (torch.stack(centres).to(torch.float32) + 0.5) / size


def chases(positions: Tensor) -> Tensor:
    """Who chases whom, read from motion: the shape that each moves towards most.

    Always right in nature's test stories if positions are exact; right for .88 of chasers from
    :func:`locate` at 64 pixels, for .80 from frames blurred 3 pixels wide.

    Args:
        positions: ``(B, n, N, 2)`` float32 in canvas units, as of :func:`locate`.

    Returns:
        ``(B, N)`` int64. A shape that chases nobody gets an answer too; the caller knows the root.

    Raises:
        ValueError: wrong shape.
    """
    if positions.ndim != 4 or positions.shape[-1] != 2 or positions.shape[1] < 2:
        shape = tuple(positions.shape)
        raise ValueError(f"positions must be (B, n, N, 2) with n >= 2, got {shape}")
    before = positions[:, :-1]
    moves = (positions[:, 1:] - before)[:, :, :, None]  # (B, n - 1, N, 1, 2)
    offsets = before[:, :, None] - before[:, :, :, None]  # (B, n - 1, N, N, 2), to each other
    origin = torch.zeros(2, device=positions.device)
    speed = distances(moves, origin)
    cosine = (moves * offsets).sum(-1) / (speed * distances(offsets, origin)).clamp_min(1e-6)
    score = (cosine * speed).sum(1)
    itself = torch.eye(score.shape[1], dtype=torch.bool, device=score.device)
    return score.masked_fill(itself, -torch.inf).argmax(-1)


def ring_position(frames: Tensor, facts: InterceptState) -> Tensor:
    """Where the agent's ring is in frames of Intercept, to the pixel.

    Within 1.5 pixels in all test frames at 64 pixels, also blurred 3 or 5 pixels wide; in at least
    95% at 32.

    Args:
        frames, facts: as for :func:`visited_city`.

    Returns:
        ``(B, n, 2)`` float32 in canvas units.
    """
    pixels = _unit(frames, facts)
    size = frames.shape[2]
    # White is what all channels share; the cities' share is known and taken away.
    positions = facts.positions[:, None].clone()
    positions[:, :, ACTOR] = _OUT_OF_SIGHT
    cities = _templates(facts, positions, size)
    white = (pixels.amin(-1) - blur(cities).amin(-1)).clamp_min(0)
    middle = torch.full((1, 2), (size // 2 + 0.5) / size, device=pixels.device)
    mask = _cut_out(blur(ring_cover(middle, size, size)[None, ..., None])[0, ..., 0])[0]
    mask = mask - mask.mean()
    score = conv2d(white.flatten(0, 1)[:, None], mask[None, None], padding="same")
    best = score.flatten(1).argmax(1).unflatten(0, frames.shape[:2])
    return (torch.stack([best % size, best // size], -1).to(torch.float32) + 0.5) / size
