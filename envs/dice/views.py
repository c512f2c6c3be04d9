"""Look at the cube from anywhere on the circle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.dice.base import Dice, TestDigits
from envs.dice.scene import DiceState


class Views(Dice):
    """A scene that stands still: the action ``(1,)`` is where on its circle the camera goes, in
    half turns, -1 to 1.

    The first view is from anywhere. Nothing is at stake, and a scene never ends by itself.

    Args:
        max_steps: cut-off; None for 9 (10 views).
        test_digits: see ``Dice``.
    """

    fps: ClassVar[int] = 2

    def __init__(self, max_steps: int | None = None, test_digits: TestDigits = "same") -> None:
        space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(space, 9 if max_steps is None else max_steps, test_digits)

    def begin(self, scene_ids: Tensor) -> DiceState:
        """A room, seen from anywhere."""
        return DiceState(**self.draw(scene_ids))

    def advance(self, state: DiceState, actions: Tensor) -> tuple[DiceState, Tensor]:
        """Go to the angle that the action ``(B, 1)`` names."""
        return replace(state, camera=math.pi * actions[:, 0]), torch.zeros_like(state.camera)
