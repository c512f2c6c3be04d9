"""Environments with ``action_masks``, as sb3-contrib calls them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel import make
from worldmodel.base import WorldModel
from worldmodel.models.baselines.replay import ReplayConfig
from worldmodel.spec import Spec


class Cards(gym.Env):
    """Four cards, each can be played once; card c pays c times the turn: best is 0, 1, 2, 3.

    The observation shows which are left. An illegal card is an error where ``strict``; else it
    pays 50, which tempts whoever takes no notice of masks.
    """

    observation_space = gym.spaces.Box(0, 1, (4,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(4)
    steps = 4

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        self.hand = np.ones(4, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.hand[:] = 1
        return self.hand.copy(), {}

    def action_masks(self) -> np.ndarray:
        return self.hand > 0

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        card, turn = self.card(action), 5 - self.hand.sum()
        legal = self.hand[card] > 0
        assert legal or not self.strict, f"card {card} was played twice"
        self.hand[card] = 0
        reward = float(card * turn) if legal else 50.0
        return self.hand.copy(), reward, not self.hand.any(), False, {}

    def card(self, action: Any) -> int:
        return int(action)


class CardsBySuit(Cards):
    """The same with two entries: a suit, of which only the first is ever legal, and the card."""

    action_space = gym.spaces.MultiDiscrete([2, 4])

    def action_masks(self) -> np.ndarray:
        return np.concatenate([[True, False], self.hand > 0])

    def card(self, action: Any) -> int:
        suit, number = (int(entry) for entry in action)
        assert suit == 0 or not self.strict, "this suit is never legal"
        return number


class Bits(Cards):
    """Two bits: the first is always 1, the second free; ends after one step."""

    action_space = gym.spaces.MultiBinary(2)

    def action_masks(self) -> np.ndarray:
        return np.array([0, 1, 1, 1], np.int8)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action[0] == 1
        return self.hand.copy(), float(action[1]), True, False, {}


for kind in (Cards, CardsBySuit, Bits):
    if f"Masked{kind.__name__}-v0" not in gym.registry:
        gym.register(f"Masked{kind.__name__}-v0", entry_point=kind, disable_env_checker=True)


def masked_replay(kind: type[Cards], window: int = 4) -> WorldModel:
    """The environment itself as a world model, to which illegal cards are worth 50."""
    spec = Spec.from_spaces(kind.observation_space, kind.action_space, window)
    return make("replay", spec, ReplayConfig(f"Masked{kind.__name__}-v0", {"strict": False}, 1))
