"""What all simulators of dice scenes share."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium as gym
from torch import Tensor

from envs.dice.raycast import render
from envs.dice.scene import DiceState, draw, poses
from envs.simulator import Simulator

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
        """Of the camera, ``(B, 7)`` float32; see :func:`poses`."""
        return poses(state.camera)

    def draw(self, scene_ids: Tensor) -> dict[str, Tensor]:
        """All fields of ``DiceState`` at the first moment, the same for the same ids."""
        return draw(scene_ids, self.test_digits == "unseen")
