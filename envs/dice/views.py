"""What all dice scenes share, and the scene that stands still: views of the cube from anywhere."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.dice.raycast import render
from envs.dice.scene import CAMERA, DiceState, draw, poses
from envs.simulator import Simulator
from worldmodel.common.camera import Camera

TestDigits = Literal["same", "unseen"]


class Dice(Simulator[DiceState]):
    """What all dice scenes share; subclasses say how the camera moves.

    Args:
        action_space: of the subclass.
        max_steps: cut-off.
        test_digits: what cubes of test scenes bear. ``same``: the training scenes' 100 digits, as
            in the paper, where a hidden face holds ln 100 nats. ``unseen``: 100 others.

    Raises:
        ValueError: ``test_digits`` is neither.
    """

    camera: ClassVar[Camera | None] = CAMERA

    def __init__(
        self, action_space: gym.Space[Any], max_steps: int, test_digits: TestDigits
    ) -> None:
        if test_digits not in get_args(TestDigits):
            raise ValueError(
                f"test_digits must be one of {get_args(TestDigits)}, got {test_digits!r}"
            )
        super().__init__(action_space, max_steps)
        self.test_digits = test_digits

    def render(self, state: DiceState, size: int) -> Tensor:
        """The present views, ``(B, size, size, 3)`` uint8."""
        return render(state, size)

    def poses(self, state: DiceState) -> Tensor:
        """Of the camera, ``(B, 7)`` float32; see ``envs.dice.poses``."""
        return poses(state.camera)

    def draw(self, scene_ids: Tensor) -> dict[str, Tensor]:
        """All fields of ``DiceState`` at the first moment, the same for the same ids."""
        return draw(scene_ids, self.test_digits == "unseen")


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
