"""Traveling Salesman: one shape, the actor, visits the four others, the cities.

Source: Consistent Jumpy Predictions, sec. 4.1 "Narratives"; the controlled form is ours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from envs.narratives.motion import LEG_STEPS, LegState, along_leg, distances, leg
from envs.narratives.shapes import PALETTE
from envs.narratives.story import STORY_STREAM, Story, draw_cast, place
from envs.randomness import integers, uniform
from envs.simulator import at_start

CITIES: Final = 4
ACTOR: Final = CITIES
"""Cities are shapes 0-3; the actor is shape 4, drawn last, on top."""
ABSENT: Final = -1
"""No city."""

_ORDER_STREAM: Final = STORY_STREAM
_ACTOR_STREAM: Final = STORY_STREAM + 1


@dataclass(frozen=True)
class TravelingSalesmanState(LegState):
    """Adds the tour to the scene; ``heading`` is a city.

    Attributes:
        order: ``(B, 4)`` int64, nature's order of visits (unused by an agent).
        visited: ``(B, 4)`` bool.
    """

    order: Tensor
    visited: Tensor


class TravelingSalesman(Story[TravelingSalesmanState]):
    """The actor heads for one city after the other.

    The decision point is the choice of the next city. Nature (``controlled=False``) draws a random
    order: the actor stands on a new city in frames 6, 11, 16 and 21. An agent
    (``controlled=True``) names a city at every step, action i being the city of palette colour i;
    naming another one than before begins a new leg of five steps from where the actor is.

    Reward: minus the distance moved (canvas widths), plus 1 for each first visit; a city counts as
    visited when a leg to it is finished. The story ends when all are visited.

    Colours, kinds and sizes are independent and uniform, 12 x 4 x 4 for each shape: places left
    aside, there are 192**5 = 2.6e11 casts (the paper's "over 260 billion").

    Args:
        controlled: whether the agent chooses (4 actions) or nature (1 action).
        max_steps: cut-off; by default 40 steps for an agent, 20 for nature, who needs just as many.
    """

    def __init__(self, controlled: bool = True, max_steps: int | None = None) -> None:
        if max_steps is None:
            max_steps = 2 * CITIES * LEG_STEPS if controlled else CITIES * LEG_STEPS
        super().__init__(
            controlled=controlled, shapes=CITIES + 1, actions=CITIES, max_steps=max_steps
        )

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
            **at_start(scene_ids),
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

        leg_start, leg_steps = leg(state, here, heading)
        there = along_leg(leg_start, target, leg_steps)
        arrived = leg_steps == LEG_STEPS

        city = torch.arange(CITIES, device=heading.device)
        visited = state.visited | (arrived[:, None] & (city == heading[:, None]))
        first_visit = (visited & ~state.visited).any(dim=1)
        after = replace(
            state,
            ended=visited.all(dim=1),
            positions=torch.cat([state.positions[:, :ACTOR], there[:, None]], dim=1),
            heading=heading,
            leg_start=leg_start,
            leg_steps=leg_steps,
            visited=visited,
        )
        return after, first_visit.to(torch.float32) - distances(there, here)

    def best_return(self, state: TravelingSalesmanState) -> Tensor:
        """Exact for an agent who stands on a city or has not moved; nature's is what it will do."""
        if self.controlled:
            return best_tour(state, self.max_steps)[0]
        total = torch.zeros_like(state.leg_start[:, 0])
        for _ in range(self.max_steps):
            state, reward, _ = self.step(state, state.heading)
            total = total + reward
        return total


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
