"""(Generated) frames of known scenes read back into what happens in them.

All by analysis by synthesis: hypotheses are drawn and compared with the frame, sharp and softened,
so that a model's blur does not matter (``envs.template_match``).
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
from envs.template_match import errors, soften

_OUT_OF_SIGHT = -10.0
_ROOM = 0.14  # half the width of the largest shape
_HALO = 5  # pixels
_FAR = 0.5  # squared distance of colours beyond which all are alike


def _seen(frames: Tensor, batch: int) -> Tensor:
    """Frames as float32 in [0, 1]; ValueError unless they are (batch, n, size, size, 3)."""
    if frames.ndim != 5 or frames.shape[0] != batch or frames.shape[2] != frames.shape[3]:
        raise ValueError(f"frames must be ({batch}, n, size, size, 3), got {tuple(frames.shape)}")
    return frames.to(torch.float32) / (1 if frames.is_floating_point() else 255)


def _cut_out(masks: Tensor) -> Tensor:
    """The middle of drawings (.., size, size), with room for any shape: odd, for convolutions."""
    middle, reach = masks.shape[-1] // 2, math.ceil(_ROOM * masks.shape[-1]) + 2
    part = slice(max(0, middle - reach), middle + reach + 1)
    return masks[..., part, part]


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
    seen = _seen(frames, batch)
    places = facts.positions[:, None].repeat(1, CITIES + 1, 1, 1)
    places[:, :CITIES, ACTOR] = facts.positions[:, :CITIES]
    places[:, CITIES, ACTOR] = _OUT_OF_SIGHT
    cast = (facts.colours[:, None], facts.kinds[:, None], facts.sizes[:, None])
    drawn = render(places, *cast, frames.shape[2]).to(torch.float32) / 255  # (B, 5, H, W, 3)
    error = errors(seen, drawn)
    nearest, city = error[..., :CITIES].min(-1)
    return torch.where(nearest <= error[..., CITIES], city, ABSENT)


def coherent_story(visits: Tensor) -> Tensor:
    """Whether four visits ``(B, 4)`` int64 are each city once: ``(B,)`` bool."""
    if visits.ndim != 2 or visits.shape[1] != CITIES:
        raise ValueError(f"visits must be (B, {CITIES}), got {tuple(visits.shape)}")
    return (visits.sort(dim=1).values == torch.arange(CITIES, device=visits.device)).all(dim=1)


def reagent_colours(frames: Tensor, facts: ColorReactionState) -> Tensor:
    """Which colour each reagent has in frames of Color Reaction.

    Right in 99.6% of agent's and 100% of nature's test frames at 64 pixels, however blurred (3 or 5
    pixels wide); at 32 pixels in 99%, blurred in at least 94%.

    Args:
        frames: ``(B, n, size, size, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them, with R reagents.

    Returns:
        ``(B, n, R)`` int64, index into ``PALETTE``.

    Raises:
        ValueError: wrong shape.
    """
    seen = _seen(frames, len(facts.scene_ids))
    reagents, colours = facts.products.shape[1], len(PALETTE)
    positions = facts.positions[:, None].repeat(1, colours, 1, 1)
    positions[:, :, reagents:] = _OUT_OF_SIGHT  # what moves or stays apart is in no one's favour
    found = []
    for reagent in range(reagents):
        worn = facts.colours[:, None].repeat(1, colours, 1)
        worn[:, :, reagent] = torch.arange(colours, device=worn.device)
        cast = (worn, facts.kinds[:, None], facts.sizes[:, None])
        drawn = render(positions, *cast, frames.shape[2]).to(torch.float32) / 255
        found.append(errors(seen, drawn).argmin(-1))
    return torch.stack(found, -1)


def coherent_reaction(colours: Tensor) -> Tensor:
    """Whether one colour changes once, and stays: ``(B, n)`` int64 over frames to ``(B,)`` bool."""
    if colours.ndim != 2 or colours.shape[1] < 2:
        raise ValueError(f"colours must be (B, n) with n >= 2, got {tuple(colours.shape)}")
    return (colours[:, 1:] != colours[:, :-1]).sum(1) == 1


def locate(frames: Tensor, facts: StoryState) -> Tensor:
    """Where the known shapes are in frames, to the pixel.

    Each shape is where the frame is nearest to its colour, and around it farthest. Within 1.5
    pixels in DAG Chase's test frames, where shapes often cover each other, sharp / blurred 3 and 5
    pixels wide: agent's .97 / .94, .90 at 64 pixels and .92 / .86, .51 at 32; nature's .90 / .87,
    .82 and .87 / .81, .66.

    Args:
        frames: ``(B, n, size, size, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them, with N shapes.

    Returns:
        ``(B, n, N, 2)`` float32, centres in canvas units.

    Raises:
        ValueError: wrong shape.
    """
    seen = _seen(frames, len(facts.scene_ids))
    size, shapes = frames.shape[2], facts.kinds.shape[1]
    middle = torch.full((*facts.kinds.shape, 1, 2), (size // 2 + 0.5) / size, device=seen.device)
    white = torch.full_like(facts.kinds, len(PALETTE) - 1)
    one = [value.flatten()[:, None, None] for value in (white, facts.kinds, facts.sizes)]
    drawn = render(middle.flatten(0, 1)[:, None], one[0], one[1], one[2], size)
    masks = _cut_out(drawn[:, :, :, :, 0].to(torch.float32) / 255)  # (B * N, 1, k, k)
    halos = max_pool2d(masks, _HALO, 1, _HALO // 2) - masks
    kernels = masks / masks.sum((2, 3), keepdim=True)
    kernels -= 0.5 * halos / halos.sum((2, 3), keepdim=True)
    kernels = kernels.unflatten(0, facts.kinds.shape)
    rgb = torch.tensor(PALETTE, device=seen.device)[facts.colours] / 255  # (B, N, 3)
    found = []
    for pixels, colour, kernel in zip(seen, rgb, kernels, strict=True):
        away = (pixels[:, None] - colour[:, None, None]).square().sum(-1)  # (n, N, size, size)
        away = pad(away.clamp_max_(_FAR), (kernel.shape[-1] // 2,) * 4, value=_FAR)
        best = conv2d(away, kernel, groups=shapes).flatten(2).argmin(-1)
        found.append(torch.stack([best % size, best // size], -1))
    return (torch.stack(found).to(torch.float32) + 0.5) / size


def chases(places: Tensor) -> Tensor:
    """Who chases whom, read from motion: each shape's best target.

    Always right in nature's test stories if places are exact; right for .88 of chasers from
    :func:`locate` at 64 pixels, for .80 from frames blurred 3 pixels wide.

    Args:
        places: ``(B, n, N, 2)`` float32 in canvas units, as of :func:`locate`.

    Returns:
        ``(B, N)`` int64. A shape that chases nobody gets an answer too; the caller knows the root.

    Raises:
        ValueError: wrong shape.
    """
    if places.ndim != 4 or places.shape[-1] != 2 or places.shape[1] < 2:
        raise ValueError(f"places must be (B, n, N, 2) with n >= 2, got {tuple(places.shape)}")
    moves = (places[:, 1:] - places[:, :-1])[:, :, :, None]  # (B, n - 1, N, 1, 2)
    ways = places[:, :-1, None] - places[:, :-1, :, None]  # (B, n - 1, N, N, 2), to each other
    nothing = torch.zeros(2, device=places.device)
    length = distances(moves, nothing) * distances(ways, nothing)
    aligned = (moves * ways).sum(-1) / length.clamp_min(1e-6)  # cosine
    weight = distances(moves, nothing)
    score = (aligned * weight).sum(1)
    itself = torch.eye(score.shape[1], dtype=torch.bool, device=score.device)
    return score.masked_fill(itself, -torch.inf).argmax(-1)


def ring_position(frames: Tensor, facts: InterceptState) -> Tensor:
    """Where the agent's ring is in frames of Intercept, to the pixel.

    Within 1.5 pixels in all test frames at 64 pixels, also blurred 3 or 5 pixels wide; in at least
    95% at 32.

    Args:
        frames: ``(B, n, size, size, 3)`` uint8, or floating point in [0, 1].
        facts: the scenes, B of them.

    Returns:
        ``(B, n, 2)`` float32 in canvas units.

    Raises:
        ValueError: wrong shape.
    """
    seen = _seen(frames, len(facts.scene_ids))
    size = frames.shape[2]
    # White is what all channels share; the cities' share is known and taken away.
    places = facts.positions.clone()
    places[:, ACTOR] = _OUT_OF_SIGHT
    cast = (facts.colours[:, None], facts.kinds[:, None], facts.sizes[:, None])
    cities = render(places[:, None], *cast, size).to(torch.float32) / 255
    white = (seen.amin(-1) - soften(cities).amin(-1)).clamp_min(0)
    middle = torch.full((1, 2), (size // 2 + 0.5) / size, device=seen.device)
    mask = _cut_out(soften(ring_cover(middle, size, size)[None, ..., None])[0, ..., 0])[0]
    mask = mask - mask.mean()
    score = conv2d(white.flatten(0, 1)[:, None], mask[None, None], padding="same")
    best = score.flatten(1).argmax(1).unflatten(0, seen.shape[:2])
    return (torch.stack([best % size, best // size], -1).to(torch.float32) + 0.5) / size
