"""Random play: the baseline that every agent is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.actions import draw_actions, to_numpy
from agents.legal_actions import check_some_legal, legal_rows, make_legal
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.spec import ActionSpec


class RandomAgent:
    """Random legal actions: the baseline that every agent is compared with, and a first explorer.

    Each action is uniformly distributed; ``exponent`` makes those of a row that follow each other
    alike, which gets farther: a car uphill, a pendulum up.

    Args:
        action_space: of the environment.
        seed: of the actions.
        length: actions that are drawn at once for each row.
        exponent: of the colour of these, 0 for independent ones; see
            ``agents.actions.coloured_noise``.

    Raises:
        ValueError: the action space is not supported, ``length`` is below 1 or ``exponent`` below
            0.
    """

    def __init__(
        self, action_space: gym.Space[Any], seed: int = 0, length: int = 1, exponent: float = 0.0
    ) -> None:
        numbers_at_least(1, length=length)
        numbers_at_least(0, exponent=exponent)
        self.spec = ActionSpec.from_space(action_space)
        self.length, self.exponent = length, exponent
        self.generator = torch.Generator().manual_seed(seed)

    def set_random_seed(self, seed: int) -> None:
        """Seed the random numbers."""
        self.generator.manual_seed(seed)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], Tensor | None]:
        """One random action for each ``observation`` (n, H, W, C) or (n, D), or for a single one.

        Dicts hold such observations. ``state`` is what the previous call returned, the actions
        that come next; None draws new ones. ``action_masks`` (n, choices) say which are legal, by
        sb3-contrib's convention. ``episode_start`` and ``deterministic`` are there for SB3 and not
        used.
        """
        parts = observation.values() if isinstance(observation, Mapping) else [observation]
        shape = max((np.shape(part) for part in parts), key=len)
        lead = () if len(shape) in (1, 3) else shape[:1]
        if state is None:
            sampled = draw_actions(self.spec, (*lead, self.length), self.generator, self.exponent)
            state = sampled.movedim(len(lead), 0)  # (length, n, *action)
        actions, state = state[0], state[1:]
        if action_masks is not None:
            masks = torch.from_numpy(legal_rows(self.spec, action_masks, lead[0] if lead else 1))
            check_some_legal(self.spec, masks, "action_masks")
            flat, _ = make_legal(
                self.spec, actions.reshape(-1, *self.spec.shape), masks, self.generator
            )
            actions = flat.view(actions.shape)
        return to_numpy(self.spec, actions), state if len(state) else None
