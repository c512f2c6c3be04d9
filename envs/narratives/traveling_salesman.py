"""Traveling Salesman: one shape, the actor, visits the four others, the cities.

Source: Consistent Jumpy Predictions, sec. 4.1 "Narratives"; the controlled form is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from envs.narratives.randomness import integers, uniform
from envs.narratives.shapes import PALETTE
from envs.narratives.story import STORY_STREAM, Story, StoryState, draw_cast, place

CITIES: Final = 4
ACTOR: Final = CITIES
"""Cities are shapes 0-3; the actor is shape 4, drawn last, on top."""
LEG_STEPS: Final = 5
"""A straight way to a city takes five steps of equal length."""

_ORDER_STREAM: Final = STORY_STREAM
_ACTOR_STREAM: Final = STORY_STREAM + 1


@dataclass(frozen=True)
class TravelingSalesmanState(StoryState):
    """Adds the tour to the scene.

    Attributes:
        order: ``(B, 4)`` int64, the order of visits that nature has drawn (unused by an agent).
        heading: ``(B,)`` int64, the city that the actor is heading for or rests on, -1 at first.
        leg_start: ``(B, 2)`` float32, where the present leg began.
        leg_steps: ``(B,)`` int64, steps of the present leg taken, up to ``LEG_STEPS``.
        visited: ``(B, 4)`` bool.
    """

    order: Tensor
    heading: Tensor
    leg_start: Tensor
    leg_steps: Tensor
    visited: Tensor


class TravelingSalesman(Story[TravelingSalesmanState]):
    """The actor heads for one city after the other.

    The decision point is the choice of the next city. Nature (``controlled=False``) draws a random
    order: the actor stands on a new city in frames 6, 11, 16 and 21. An agent
    (``controlled=True``) names a city at every step, action i being the city of palette colour i;
    naming another one than before begins a new leg of five steps from where the actor is.

    Reward: minus the distance moved (canvas widths), plus 1 for each first visit; a city counts as
    visited when a leg to it is finished. The story ends when all are visited.

    Args:
        controlled: whether the agent chooses (4 actions) or nature (1 action).
        max_steps: cut-off; by default 40 steps for an agent, 20 for nature, who needs just as many.

    Raises:
        TypeError: ``controlled`` is not a bool, or ``max_steps`` not an int.
        ValueError: ``max_steps`` is below 1.
    """

    def __init__(self, controlled: bool = True, max_steps: int | None = None) -> None:
        if not isinstance(controlled, bool):
            raise TypeError(f"controlled must be a bool, got {type(controlled).__name__}")
        if max_steps is None:
            max_steps = 2 * CITIES * LEG_STEPS if controlled else CITIES * LEG_STEPS
        super().__init__(
            shapes=CITIES + 1, actions=CITIES if controlled else 1, max_steps=max_steps
        )
        self.controlled = controlled

    def begin(self, scene_ids: Tensor) -> TravelingSalesmanState:
        """The actor stands apart from all cities and nothing is visited."""
        batch, device = scene_ids.shape[0], scene_ids.device
        colours, kinds, sizes = draw_cast(scene_ids, self.shapes)
        if self.controlled:
            cities = torch.arange(CITIES, device=device).expand(batch, CITIES)
            other = integers(scene_ids, _ACTOR_STREAM, 1, len(PALETTE) - CITIES)
            colours = torch.cat([cities, CITIES + other], dim=1)
        positions = place(scene_ids, kinds, sizes)
        return TravelingSalesmanState(
            scene_ids=scene_ids,
            steps=torch.zeros_like(scene_ids),
            ended=torch.zeros_like(scene_ids, dtype=torch.bool),
            positions=positions,
            colours=colours,
            kinds=kinds,
            sizes=sizes,
            order=uniform(scene_ids, _ORDER_STREAM, CITIES).argsort(dim=1, stable=True),
            heading=torch.full_like(scene_ids, -1),
            leg_start=positions[:, ACTOR],
            leg_steps=torch.zeros_like(scene_ids),
            visited=torch.zeros((batch, CITIES), dtype=torch.bool, device=device),
        )

    def advance(
        self, state: TravelingSalesmanState, actions: Tensor
    ) -> tuple[TravelingSalesmanState, Tensor]:
        """Move a fifth of a leg towards the city that is headed for."""
        heading = actions
        if not self.controlled:
            turn = (state.steps // LEG_STEPS).clamp(max=CITIES - 1)
            heading = state.order.gather(1, turn[:, None])[:, 0]
        here = state.positions[:, ACTOR]
        target = state.positions.gather(1, heading[:, None, None].expand(-1, 1, 2))[:, 0]

        turned = heading != state.heading
        leg_start = torch.where(turned[:, None], here, state.leg_start)
        leg_steps = torch.where(turned, 1, (state.leg_steps + 1).clamp(max=LEG_STEPS))
        arrived = leg_steps == LEG_STEPS
        fraction = (leg_steps.to(torch.float32) / LEG_STEPS)[:, None]
        there = leg_start + (target - leg_start) * fraction
        there = torch.where(arrived[:, None], target, there)

        city = torch.arange(CITIES, device=heading.device)
        visited = state.visited | (arrived[:, None] & (city == heading[:, None]))
        first_visit = (visited & ~state.visited).any(dim=1)
        move = there - here
        distance = (move[:, 0] * move[:, 0] + move[:, 1] * move[:, 1]).sqrt()
        after = replace(
            state,
            ended=visited.all(dim=1),
            positions=torch.cat([state.positions[:, :ACTOR], there[:, None]], dim=1),
            heading=heading,
            leg_start=leg_start,
            leg_steps=leg_steps,
            visited=visited,
        )
        return after, first_visit.to(torch.float32) - distance
