"""How shapes move: in legs towards a goal, or step by step where an agent steers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from envs.narratives.story import StoryState

LEG_STEPS: Final = 5
"""A straight way to a goal takes five steps of equal length."""
STEERING: Final = ((0.0, 0.0), (0.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 0.0))
"""What the five actions of a steered shape mean: stay, up, down, left, right."""


@dataclass(frozen=True)
class LegState(StoryState):
    """A story whose actor walks in legs.

    Attributes:
        heading: ``(B,)`` int64, what the actor is heading for or rests at, -1 at first.
        leg_start: ``(B, 2)`` float32, where the present leg began.
        leg_steps: ``(B,)`` int64, steps of the present leg taken, up to ``LEG_STEPS``.
    """

    heading: Tensor
    leg_start: Tensor
    leg_steps: Tensor


def leg(state: LegState, here: Tensor, heading: Tensor) -> tuple[Tensor, Tensor]:
    """Go on with a leg, or begin another where ``heading`` is not the state's.

    Args:
        state: B scenes.
        here: ``(B, 2)``, where the actor is.
        heading: ``(B,)`` int64.

    Returns:
        where the leg began ``(B, 2)`` and how many of its steps are now taken ``(B,)``.
    """
    turned = heading != state.heading
    start = torch.where(turned[:, None], here, state.leg_start)
    steps = torch.where(turned, 1, (state.leg_steps + 1).clamp(max=LEG_STEPS))
    return start, steps


def along_leg(start: Tensor, target: Tensor, steps: Tensor) -> Tensor:
    """Where the actor is after ``steps`` ``(B,)`` of a leg, ``(B, 2)``; at the end it is there."""
    fraction = (steps.to(torch.float32) / LEG_STEPS)[:, None]
    there = start + (target - start) * fraction
    return torch.where((steps == LEG_STEPS)[:, None], target, there)


def steer(here: Tensor, actions: Tensor, step: float, margin: float) -> Tensor:
    """Move by one of five actions; a move that would come nearer to the edge is not made.

    Args:
        here: ``(B, 2)`` float32, canvas units.
        actions: ``(B,)`` int64, index into ``STEERING``.
        step: length of a move.
        margin: least distance from the edge.

    Returns:
        ``(B, 2)`` float32.
    """
    there = here + step * torch.tensor(STEERING, device=here.device)[actions]
    inside = ((there >= margin) & (there <= 1 - margin)).all(1, keepdim=True)
    return torch.where(inside, there, here)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Between points ``(.., 2)``: ``(..)``; the same whatever the batch."""
    gap = a - b
    return (gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1]).sqrt()
