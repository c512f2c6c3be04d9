"""Walk around the cube until the wanted digit is in front."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import interpolate

from envs.dice.scene import SIDES, DiceState, facing, pool
from envs.dice.views import Dice, TestDigits
from envs.randomness import integers

LEFT: Final = 0
RIGHT: Final = 1
DECLARE: Final = 2
TURN: Final = math.pi / 4
"""How far along the circle a move goes, in radians: eight moves lead around."""
MOVE_COST: Final = 0.05

_WANTED_STREAM: Final = 50
_INSET: Final = 1 / 4  # of the frame's width
_GROUND: Final = 255
_BORDER: Final = (200, 30, 30)


@dataclass(frozen=True)
class FindDigitState(DiceState):
    """Adds the wanted digit.

    Attributes:
        wanted: ``(B,)`` int64, the side face whose digit is shown in the corner.
    """

    wanted: Tensor


class FindDigit(Dice):
    """Find a digit on the cube; its image is in the left upper corner.

    Actions: 0 and 1 walk an eighth of the circle to the viewer's left or right and cost 0.05
    each; 2 declares that the side face turned most to the camera bears a digit of the wanted
    class, and ends the scene, with reward 1 if that is so, else 0. The wanted digit is that of a
    random side face; others may bear its class too.

    Args:
        max_steps: cut-off; None for 16.
        test_digits: see ``Dice``.
    """

    fps: ClassVar[int] = 3

    def __init__(self, max_steps: int | None = None, test_digits: TestDigits = "same") -> None:
        super().__init__(spaces.Discrete(3), 16 if max_steps is None else max_steps, test_digits)
        self._pool = pool()

    def begin(self, scene_ids: Tensor) -> FindDigitState:
        """A room, seen from anywhere, and a digit to look for."""
        wanted = integers(scene_ids, _WANTED_STREAM, 1, SIDES)[:, 0]
        return FindDigitState(**self.draw(scene_ids), wanted=wanted)

    def advance(self, state: DiceState, actions: Tensor) -> tuple[DiceState, Tensor]:
        """Walk, or declare."""
        declared = actions == DECLARE
        # The viewer looks inwards: going to his right is to go on anticlockwise.
        move = torch.where(declared, 0, torch.where(actions == RIGHT, 1, -1))
        camera = state.camera + TURN * move.to(torch.float32)
        right = self.right_sides(state).gather(1, facing(state, state.camera[:, None]))[:, 0]
        reward = torch.where(declared, right.to(torch.float32), -MOVE_COST)
        return replace(state, camera=camera, ended=state.ended | declared), reward

    def right_sides(self, state: DiceState) -> Tensor:
        """Which side faces bear a digit of the wanted class: ``(B, 4)`` bool."""
        assert isinstance(state, FindDigitState)
        labels = self._pool.labels.to(state.faces.device)[state.faces[:, :SIDES]]
        return labels == labels.gather(1, state.wanted[:, None])

    def best_return(self, state: DiceState) -> Tensor:
        """The shortest walk to a right face, exact for a player who knows all faces.

        An agent must look first, so for agents it is an upper bound.
        """
        left = (self.max_steps - state.steps).to(torch.float32)
        right = self.right_sides(state)
        moves = torch.arange(-SIDES, SIDES + 1, device=state.camera.device)
        there = facing(state, state.camera[:, None] + TURN * moves)  # (B, 9)
        possible = right.gather(1, there) & (moves.abs() < left[:, None])
        value = torch.where(possible, 1 - MOVE_COST * moves.abs(), -torch.inf)
        # 0: where no right face can be reached in time, it is best to declare at once.
        return value.amax(1).clamp_min(0) * ~state.ended

    def render(self, state: DiceState, size: int) -> Tensor:
        """The present views, ``(B, size, size, 3)`` uint8, the wanted digit in the corner."""
        frames = super().render(state, size)
        assert isinstance(state, FindDigitState)
        digit = state.faces.gather(1, state.wanted[:, None])[:, 0]
        side = max(4, round(size * _INSET))
        images = self._pool.images.to(digit.device)[digit][:, None]
        ink = interpolate(images, (side, side), mode="bilinear", antialias=True)[:, 0]
        inset = ((1 - ink.clamp(0, 1)) * _GROUND).to(torch.uint8)
        border = torch.tensor(_BORDER, dtype=torch.uint8, device=digit.device)
        frames[:, : side + 2, : side + 2] = border
        frames[:, 1 : side + 1, 1 : side + 1] = inset[..., None]
        return frames
