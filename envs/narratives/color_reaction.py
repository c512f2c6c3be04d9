"""Color Reaction: a shape touches another one, which takes a new colour.

Source: Consistent Jumpy Predictions, sec. 4.1, figure 3; the controlled form is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from envs.narratives.motion import LEG_STEPS, LegState, along_leg, distances, leg
from envs.narratives.shapes import CIRCUMRADII, KIND_NAMES, PALETTE, RADII, bounding_radii
from envs.narratives.story import CLEARANCE, STORY_STREAM, Story, draw_cast, place
from envs.randomness import integers
from envs.simulator import at_start

REAGENTS: Final = 3
"""Of an agent's scene: shapes 0-2, of kinds 0-2. Shape 3 shows the goal, shape 4 is the actor."""
GOAL: Final = REAGENTS
SHIFTS: Final = (1, 4, 8)
"""The rule that an agent has to learn: colour of the product = (the actor's + shift of the
reagent's kind) mod 12."""
NATURE_STEPS: Final = 11
"""Twelve frames: the actor arrives in frame 6, the colour is new in frames 7-12."""

_PRODUCT_STREAM: Final = STORY_STREAM
_GOAL_STREAM: Final = STORY_STREAM + 1
_OWN_STREAM: Final = STORY_STREAM + 2
_TOUCH: Final = 0.9
"""Share of the sum of radii at which shapes touch: both stay visible."""

_COLOURS: Final = len(PALETTE)
_GOAL_KIND: Final = KIND_NAMES.index("pentagon")
_GOAL_SIZE: Final = len(RADII) - 1
_GOAL_RADIUS: Final = RADII[_GOAL_SIZE] * CIRCUMRADII[_GOAL_KIND]
_GOAL_PLACE: Final = (1 - _GOAL_RADIUS - CLEARANCE, _GOAL_RADIUS + CLEARANCE)


@dataclass(frozen=True)
class ColorReactionState(LegState):
    """R reagents come first, the actor last; ``heading`` is a reagent.

    Attributes:
        products: ``(B, R)`` int64, the colour that each reagent takes when it is touched.
        touched: ``(B,)`` int64, the reagent that the actor has reached, -1 for none.
    """

    products: Tensor
    touched: Tensor


class ColorReaction(Story[ColorReactionState]):
    """The actor walks to a reagent, five steps; the step after, the reagent has a new colour.

    Nature (``controlled=False``): two shapes, the new colour is any but the old one; the story ends
    after twelve frames. An agent (``controlled=True``) names one of three reagents at every step:
    0 the circle, 1 the square, 2 the triangle; naming another one than before begins a new leg. A
    pentagon in the right upper corner wears the colour to make, the product of one of the three.
    The reaction ends the story, with reward 1 if its product is the goal's colour, else 0.

    Args:
        controlled: whether the agent chooses (3 actions) or nature (1 action).
        max_steps: cut-off; None for 20 steps for an agent, 11 for nature, who needs just as many.
    """

    def __init__(self, controlled: bool = True, max_steps: int | None = None) -> None:
        if max_steps is None:
            max_steps = 20 if controlled else NATURE_STEPS
        shapes = REAGENTS + 2 if controlled else 2
        super().__init__(
            controlled=controlled, shapes=shapes, actions=REAGENTS, max_steps=max_steps
        )

    def begin(self, scene_ids: Tensor) -> ColorReactionState:
        """The actor stands apart from all reagents, and nothing is touched."""
        colours, kinds, sizes = draw_cast(scene_ids, self.shapes)
        if self.controlled:
            colours, kinds, sizes, products = _agents_cast(scene_ids, colours, kinds, sizes)
            others = [0, 1, 2, 4]
            goal = (*_GOAL_PLACE, _GOAL_RADIUS)
            free = place(scene_ids, kinds[:, others], sizes[:, others], reserved=goal)
            corner = torch.tensor(_GOAL_PLACE, device=free.device).expand(len(free), 1, 2)
            positions = torch.cat([free[:, :GOAL], corner, free[:, GOAL:]], 1)
        else:
            shift = 1 + integers(scene_ids, _PRODUCT_STREAM, 1, _COLOURS - 1)
            products = (colours[:, :1] + shift) % _COLOURS
            positions = place(scene_ids, kinds, sizes)
        none = torch.full_like(scene_ids, -1)
        return ColorReactionState(
            **at_start(scene_ids),
            positions=positions,
            colours=colours,
            kinds=kinds,
            sizes=sizes,
            heading=none,
            leg_start=positions[:, -1],
            leg_steps=torch.zeros_like(scene_ids),
            products=products,
            touched=none,
        )

    def advance(
        self, state: ColorReactionState, actions: Tensor
    ) -> tuple[ColorReactionState, Tensor]:
        """React where a reagent was touched; else walk on."""
        rows = torch.arange(len(actions), device=actions.device)
        before = state.touched >= 0
        reagent = torch.where(before, state.touched, actions)
        product = state.products[rows, reagent]
        colours = state.colours.clone()
        colours[rows, reagent] = torch.where(before, product, colours[rows, reagent])

        here, centre = state.positions[:, -1], state.positions[rows, reagent]
        start, steps = leg(state, here, reagent)
        radii = bounding_radii(state.kinds, state.sizes)
        gap = _TOUCH * (radii[rows, reagent] + radii[:, -1])
        away = (gap / distances(start, centre).clamp_min(1e-6))[:, None]
        there = along_leg(start, centre + (start - centre) * away, steps)
        there = torch.where(before[:, None], here, there)
        touched = torch.where(before | (steps == LEG_STEPS), reagent, -1)

        if self.controlled:
            ended = before
            reward = (before & (product == state.colours[:, GOAL])).to(torch.float32)
        else:
            ended = state.steps + 1 >= NATURE_STEPS
            reward = torch.zeros_like(here[:, 0])
        after = replace(
            state,
            ended=ended,
            positions=torch.cat([state.positions[:, :-1], there[:, None]], 1),
            colours=colours,
            heading=reagent,
            leg_start=start,
            leg_steps=steps,
            touched=touched,
        )
        return after, reward

    def best_return(self, state: ColorReactionState) -> Tensor:
        """Exact: 1 while the right reagent can still be reached, and nothing else was touched."""
        if not self.controlled:
            return torch.zeros_like(state.leg_start[:, 0])
        right = state.products == state.colours[:, GOAL, None]  # (B, 3), one of them
        going = right.gather(1, state.heading.clamp_min(0)[:, None])[:, 0] & (state.heading >= 0)
        needed = torch.where(going, LEG_STEPS - state.leg_steps, LEG_STEPS) + 1
        wrong = (state.touched >= 0) & ~going
        possible = ~state.ended & ~wrong & (state.steps + needed <= self.max_steps)
        return possible.to(torch.float32)


def _agents_cast(
    scene_ids: Tensor, colours: Tensor, kinds: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An agent's cast, and products: a reagent of each kind, none in a product's colour."""
    shifts = torch.tensor(SHIFTS, device=kinds.device)
    products = (colours[:, -1:] + shifts) % _COLOURS
    kinds[:, :REAGENTS] = torch.arange(REAGENTS, device=kinds.device)
    kinds[:, GOAL], sizes[:, GOAL] = _GOAL_KIND, _GOAL_SIZE
    # The actor's colour and the shifts that no kind has lead to the nine other colours.
    free = [shift for shift in range(_COLOURS) if shift not in SHIFTS]
    chosen = integers(scene_ids, _OWN_STREAM, REAGENTS, len(free))
    own = torch.tensor(free, device=kinds.device)[chosen]
    colours[:, :REAGENTS] = (colours[:, -1:] + own) % _COLOURS
    goal = integers(scene_ids, _GOAL_STREAM, 1, REAGENTS)
    colours[:, GOAL] = products.gather(1, goal)[:, 0]
    return colours, kinds, sizes, products
