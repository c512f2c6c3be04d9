"""Gymnasium wrappers with which a decision takes as many steps as in imagination."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from itertools import repeat
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from agents.actions import chunk_space
from worldmodel.spec import ActionSpec

Step = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]


class _Decision(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """One decision of the agent is several steps of the environment."""

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"steps: expected an int, got {type(steps).__name__}")
        if steps < 1:
            raise ValueError(f"steps: a decision takes at least 1 step, got {steps}")
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self.steps = steps

    def _take(self, actions: Iterable[Any]) -> Step:
        """Take the actions until the episode ends; rewards are summed.

        Each step gets a copy: environments may change their action in place.
        """
        total, count = 0.0, 0
        for action in actions:
            observation, reward, terminated, truncated, info = self.env.step(deepcopy(action))
            total += float(reward)
            count += 1
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, "steps": count}


class HoldAction(_Decision):
    """Hold every action for some steps: one decision of the agent is that many steps of the scene.

    Rewards are summed; the hold stops early if the episode ends. ``info["steps"]`` is the number of
    steps that were taken. An agent that was trained in ``ImaginedVecEnv(..., hold=k)`` runs on
    ``HoldAction(env, k)`` unchanged.

    Args:
        env: any environment.
        steps: how many steps an action is held, at least 1.

    Raises:
        TypeError: ``steps`` is not an int.
        ValueError: ``steps`` is below 1.

    Example:
        >>> env = HoldAction(gym.make("CartPole-v1"), 3)
        >>> _ = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> reward, info["steps"]
        (3.0, 3)
    """

    def step(self, action: Any) -> Step:
        """Take the action up to ``steps`` times; the observation is that of the last step."""
        return self._take(repeat(action, self.steps))


class ChunkAction(_Decision):
    """Take several actions at once: one decision of the agent is a chunk of actions.

    The action space becomes flat: ``Discrete(4)`` with three steps is ``MultiDiscrete([4, 4, 4])``.
    Rewards are summed; the chunk stops early if the episode ends, and ``info["steps"]`` is the
    number of actions that were taken. An agent that was trained in ``ImaginedVecEnv(..., hold=k,
    chunk=True)`` runs on ``ChunkAction(env, k)`` unchanged.

    Args:
        env: an environment whose actions world models take.
        steps: how many actions a chunk has, at least 1.

    Raises:
        TypeError: ``steps`` is not an int.
        ValueError: ``steps`` is below 1, or the action space is not supported.

    Example:
        >>> env = ChunkAction(gym.make("CartPole-v1"), 3)
        >>> env.action_space
        MultiDiscrete([2 2 2])
    """

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        super().__init__(env, steps)
        self._spec = ActionSpec.from_space(env.action_space)
        self.action_space = chunk_space(self._spec, steps)

    def step(self, action: Any) -> Step:
        """Take the actions one after the other; the observation is that of the last step."""
        dtype = self.env.action_space.dtype
        return self._take(np.asarray(action, dtype).reshape(self.steps, *self._spec.shape))
