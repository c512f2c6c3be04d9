"""Intercept: nature sends the salesman around, the agent waits where he will arrive. (Ours.)"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from envs.narratives.motion import LEG_STEPS, STEERING, distances, steer
from envs.narratives.story import STORY_STREAM, Story
from envs.narratives.traveling_salesman import CITIES, TravelingSalesman, TravelingSalesmanState
from envs.randomness import uniform

STEP: Final = 0.08
"""A move of the ring, in canvas widths: 0.4 in the five steps of a leg."""
REACH: Final = 0.1
"""An arrival counts if the ring's middle is at most so far from the city's, in canvas widths."""
RADIUS: Final = 0.12
WIDTH: Final = 0.025
"""Of the ring, which is white."""

_RING_STREAM: Final = STORY_STREAM + 10
_MARGIN: Final = 0.08


@dataclass(frozen=True)
class InterceptState(TravelingSalesmanState):
    """Adds the ring.

    Attributes:
        ring: ``(B, 2)`` float32, its middle in canvas units.
    """

    ring: Tensor


class Intercept(Story[InterceptState]):
    """The salesman visits four cities in nature's order; the agent steers a ring.

    Actions: stay, up, down, left, right; a move that would leave the canvas is not made. Each
    arrival at a city that the ring surrounds (middles at most 0.1 apart) brings 1. The order is not
    visible: a leg shows its city only once it has begun, and then most cities are too far. The
    story ends with his last arrival, after 20 steps.

    Args:
        controlled: must be True; without a ring it is TravelingSalesman.
        max_steps: cut-off; None for 20.

    Raises:
        ValueError: ``controlled`` is False.
    """

    def __init__(self, controlled: bool = True, max_steps: int | None = None) -> None:
        super().__init__(
            controlled=controlled,
            shapes=CITIES + 1,
            actions=len(STEERING),
            max_steps=CITIES * LEG_STEPS if max_steps is None else max_steps,
        )
        if not controlled:
            raise ValueError(
                "controlled must be True: without an agent, Intercept is TravelingSalesman with "
                "controlled=False"
            )
        self._nature = TravelingSalesman(controlled=False)

    def begin(self, scene_ids: Tensor) -> InterceptState:
        """The ring is anywhere."""
        scene = self._nature.begin(scene_ids)
        ring = _MARGIN + (1 - 2 * _MARGIN) * uniform(scene_ids, _RING_STREAM, 2)
        known = {field.name: getattr(scene, field.name) for field in fields(scene)}
        return InterceptState(**known, ring=ring)

    def advance(self, state: InterceptState, actions: Tensor) -> tuple[InterceptState, Tensor]:
        """The ring moves, the salesman walks."""
        ring = steer(state.ring, actions, STEP, _MARGIN)
        after, _ = self._nature.advance(state, torch.zeros_like(actions))
        assert isinstance(after, InterceptState)
        city = after.positions[torch.arange(len(ring), device=ring.device), after.heading]
        arrived = (after.visited & ~state.visited).any(1)
        caught = arrived & (distances(city, ring) <= REACH)
        return replace(after, ring=ring), caught.to(torch.float32)

    def render(self, state: InterceptState, size: int) -> Tensor:
        """The present frames, ``(B, size, size, 3)`` uint8, the ring on top."""
        frames = super().render(state, size)
        # Only a patch of the canvas that holds the ring is touched.
        patch = min(size, 2 * math.ceil((RADIUS + WIDTH) * size) + 2)
        corner = (state.ring * size - patch / 2).round().clamp(0, size - patch).to(torch.int64)
        within = torch.arange(patch, device=frames.device)
        rows = torch.arange(len(frames), device=frames.device)[:, None, None]
        columns = (corner[:, 0, None] + within)[:, None, :]
        lines = (corner[:, 1, None] + within)[:, :, None]
        cover = ring_cover(state.ring - corner / size, patch, size)[..., None]
        below = frames[rows, lines, columns].to(torch.float32)
        frames[rows, lines, columns] = (below + (255 - below) * cover + 0.5).to(torch.uint8)
        return frames

    def best_return(self, state: InterceptState) -> Tensor:
        """Exact for one who knows the order, by dynamic programming; for agents an upper bound."""
        moves = round(1 / STEP)
        span = torch.arange(-moves, moves + 1, device=state.ring.device) * STEP
        y, x = torch.meshgrid(span, span, indexing="ij")
        place = state.ring[:, None, None] + torch.stack([x, y], -1)  # all that can be reached
        inside = ((place >= _MARGIN) & (place <= 1 - _MARGIN)).all(-1)
        rows = torch.arange(len(place), device=place.device)
        value = torch.zeros_like(place[..., 0])
        for time in range(self.max_steps, 0, -1):
            reward = torch.zeros_like(value)
            if time % LEG_STEPS == 0 and time <= CITIES * LEG_STEPS:
                city = state.positions[rows, state.order[:, time // LEG_STEPS - 1]]
                reward = (distances(place, city[:, None, None]) <= REACH).to(torch.float32)
            worth = (value + reward).masked_fill(~inside, -torch.inf)
            best = worth.clone()
            best[:, 1:] = torch.maximum(best[:, 1:], worth[:, :-1])
            best[:, :-1] = torch.maximum(best[:, :-1], worth[:, 1:])
            best[:, :, 1:] = torch.maximum(best[:, :, 1:], worth[:, :, :-1])
            best[:, :, :-1] = torch.maximum(best[:, :, :-1], worth[:, :, 1:])
            value = torch.where((time > state.steps)[:, None, None], best, value)
        return value[:, moves, moves] * ~state.ended


def ring_cover(middles: Tensor, patch: int, size: int) -> Tensor:
    """How much of each pixel a ring covers, in the left upper corner of a canvas.

    Args:
        middles: ``(B, 2)`` float32 in canvas units.
        patch: height and width of the corner in pixels.
        size: of the canvas in pixels.

    Returns:
        ``(B, patch, patch)`` float32 in [0, 1].
    """
    place = torch.arange(patch, device=middles.device) + 0.5
    x, y = (place - middles[:, i, None] * size for i in range(2))
    radius = ((y * y)[:, :, None] + (x * x)[:, None, :]).sqrt_()
    off = radius.sub_(RADIUS * size).abs_().sub_(WIDTH * size / 2)
    return off.neg_().add_(0.5).clamp_(0, 1)
