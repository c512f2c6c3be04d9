"""Random play: the baseline that every agent is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents import actions as action_border
from agents.legal_actions import check_some_legal, legal_rows, make_legal
from worldmodel.spec import ActionSpec


class RandomAgent:
    """Uniformly random legal actions: the baseline that every agent is compared with.

    Args:
        action_space: of the environment.
        seed: of the actions.

    Raises:
        ValueError: the action space is not supported.
    """

    def __init__(self, action_space: gym.Space[Any], seed: int = 0) -> None:
        self.spec = ActionSpec.from_space(action_space)
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
    ) -> tuple[NDArray[Any], None]:
        """One random action for each ``observation`` (n, H, W, C) or (n, D), or for a single one.

        Dicts hold such observations.
        ``action_masks`` (n, choices) say which are legal, by sb3-contrib's convention. ``state``,
        ``episode_start`` and ``deterministic`` are there for SB3 and not used.
        """
        parts = observation.values() if isinstance(observation, Mapping) else [observation]
        shape = max((np.shape(part) for part in parts), key=len)
        lead = () if len(shape) in (1, 3) else shape[:1]
        actions = action_border.draw_actions(self.spec, lead, self.generator)
        if action_masks is not None:
            masks = torch.from_numpy(legal_rows(self.spec, action_masks, lead[0] if lead else 1))
            check_some_legal(self.spec, masks, "action_masks")
            flat, _ = make_legal(
                self.spec, actions.view(-1, *self.spec.shape), masks, self.generator
            )
            actions = flat.view(actions.shape)
        return action_border.to_numpy(self.spec, actions), None
