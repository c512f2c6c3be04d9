"""DAG Chase: four shapes move, each but one chases another.

Source: Consistent Jumpy Predictions names the narrative; speeds, lengths and the controlled form
are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from envs.narratives.motion import STEERING, distances, steer
from envs.narratives.shapes import COLOUR_NAMES, bounding_radii
from envs.narratives.story import STORY_STREAM, Story, StoryState, draw_cast, place
from envs.randomness import hash_ids, integers, uniform
from envs.simulator import at_start

SHAPES: Final = 4
ROOT: Final = SHAPES - 1
"""The shape that chases nobody: the last one, on top. An agent's is a small white circle."""
ROOT_SPEED: Final = 0.06
NATURE_SPEED: Final = 0.05
AGENT_SPEED: Final = 0.025
"""Steps of the root, and of chasers in nature's and in an agent's scenes, in canvas widths."""
TOUCH: Final = 0.9
"""Share of the sum of radii at which shapes touch: chasers come no nearer."""

_ORDER_STREAM: Final = STORY_STREAM
_PARENT_STREAM: Final = STORY_STREAM + 1
_HEADING_STREAM: Final = STORY_STREAM + 2
_TURN_STREAM: Final = STORY_STREAM + 3
_SWERVE: Final = 0.6  # the wandering root turns by at most so many radians a step
_MARGIN: Final = 0.12  # a wandering root's middle keeps away from the edge, in canvas widths
_AGENT_MARGIN: Final = 0.08  # an agent's small circle begins no nearer to it
_WHITE: Final = COLOUR_NAMES.index("white")


@dataclass(frozen=True)
class DAGChaseState(StoryState):
    """Adds who chases whom.

    Attributes:
        parents: ``(B, 4)`` int64, whom each shape chases; -1 for the root.
        angle: ``(B,)`` float32, where a wandering root is heading, radians.
    """

    parents: Tensor
    angle: Tensor


class DAGChase(Story[DAGChaseState]):
    """Each shape but the root moves straight towards another one, as far as its speed goes.

    Who chases whom: in a random order that begins with the root, each shape chases one of those
    before it. Frames show it by motion only. Nature (``controlled=False``) lets the root wander;
    after 21 frames the story is cut off. An agent (``controlled=True``) steers it: stay, up, down,
    left, right; a move that would leave the canvas is not made. Each step on which nobody touches
    the root brings 1 / ``max_steps``; a touch ends the story.

    Args:
        controlled: whether the agent moves the root (5 actions) or nature does (1 action).
        max_steps: cut-off; None for 40 steps for an agent, 20 for nature.
    """

    def __init__(self, controlled: bool = True, max_steps: int | None = None) -> None:
        if max_steps is None:
            max_steps = 40 if controlled else 20
        super().__init__(
            controlled=controlled, shapes=SHAPES, actions=len(STEERING), max_steps=max_steps
        )

    def begin(self, scene_ids: Tensor) -> DAGChaseState:
        """No shape touches another one."""
        colours, kinds, sizes = draw_cast(scene_ids, SHAPES)
        if self.controlled:
            colours[:, :ROOT] %= _WHITE
            colours[:, ROOT], kinds[:, ROOT], sizes[:, ROOT] = _WHITE, 0, 0  # a small circle
        order = uniform(scene_ids, _ORDER_STREAM, ROOT).argsort(dim=1, stable=True)
        queue = torch.cat([torch.full_like(order[:, :1], ROOT), order], 1)
        parents = torch.full_like(queue, -1)
        for rank in range(1, SHAPES):
            chosen = integers(scene_ids, _PARENT_STREAM + 10 * rank, 1, rank)
            parents = parents.scatter(1, queue[:, rank, None], queue.gather(1, chosen))
        return DAGChaseState(
            **at_start(scene_ids),
            positions=place(scene_ids, kinds, sizes),
            colours=colours,
            kinds=kinds,
            sizes=sizes,
            parents=parents,
            angle=uniform(scene_ids, _HEADING_STREAM, 1)[:, 0] * (2 * torch.pi),
        )

    def advance(self, state: DAGChaseState, actions: Tensor) -> tuple[DAGChaseState, Tensor]:
        """The root moves, and the others go to where their prey was."""
        root, angle = state.positions[:, ROOT], state.angle
        if self.controlled:
            root = steer(root, actions, ROOT_SPEED, _AGENT_MARGIN)
        else:
            root, angle = _wander(state)
        speed = AGENT_SPEED if self.controlled else NATURE_SPEED
        radii = TOUCH * bounding_radii(state.kinds, state.sizes)
        prey = state.parents[:, :ROOT]
        target = state.positions.gather(1, prey[..., None].expand(-1, -1, 2))
        here = state.positions[:, :ROOT]
        gap = distances(target, here)
        free = (gap - radii[:, :ROOT] - radii.gather(1, prey)).clamp(0, speed)
        there = here + (target - here) * (free / gap.clamp_min(1e-6))[..., None]
        after = replace(state, positions=torch.cat([there, root[:, None]], 1), angle=angle)
        if not self.controlled:
            return after, torch.zeros_like(angle)
        caught = touches(after)
        return replace(after, ended=caught), (~caught).to(torch.float32) / self.max_steps

    def best_return(self, state: DAGChaseState) -> Tensor:
        """An upper bound: never to be caught again.

        Over 300 test scenes a player who looks six steps ahead and knows who chases whom gets 0.67
        of it, and random play 0.22 (``tests/envs/narratives/test_dag_chase.py``).
        """
        if not self.controlled:
            return torch.zeros_like(state.angle)
        left = (self.max_steps - state.steps).clamp_min(0).to(torch.float32)
        return torch.where(state.ended, 0.0, left / self.max_steps)


def touches(state: DAGChaseState) -> Tensor:
    """Whether anybody touches the root: ``(B,)`` bool."""
    radii = TOUCH * bounding_radii(state.kinds, state.sizes)
    gap = distances(state.positions[:, :ROOT], state.positions[:, ROOT:])
    return (gap <= radii[:, :ROOT] + radii[:, ROOT:] + 1e-4).any(1)


def _wander(state: DAGChaseState) -> tuple[Tensor, Tensor]:
    """The root's next place and heading: a smooth random walk that turns back at the edge."""
    turn = uniform(hash_ids(state.scene_ids, _TURN_STREAM, state.steps), 0, 1)[:, 0]
    angle = state.angle + _SWERVE * (2 * turn - 1)
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    there = state.positions[:, ROOT] + ROOT_SPEED * direction
    outside = (there < _MARGIN) | (there > 1 - _MARGIN)
    direction = torch.where(outside, -direction, direction)
    there = torch.where(outside, state.positions[:, ROOT] + ROOT_SPEED * direction, there)
    return there.clamp(_MARGIN, 1 - _MARGIN), torch.atan2(direction[:, 1], direction[:, 0])
