"""Gymnasium wrappers that give a real environment the rhythm of an imagined one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from agents.actions import chunk_space
from worldmodel.spec import ActionSpec


class HoldAction(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Hold every action for some steps: one decision of the agent is that many steps of the scene.

    Rewards are summed; the hold stops early where the episode ends. ``info["steps"]`` says how
    many steps were taken. What was trained in ``ImaginedVecEnv(..., hold=k)`` runs on
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

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        _check_steps(steps)
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self.steps = steps

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the action up to ``steps`` times; the observation is that of the last step."""
        return _take(self.env, repeat(action, self.steps))


class ChunkAction(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Take several actions at once: one decision of the agent is a chunk of actions.

    The action space becomes flat: ``Discrete(4)`` with three steps is ``MultiDiscrete([4, 4, 4])``.
    Rewards are summed; the rest of a chunk is left undone where the episode ends, and
    ``info["steps"]`` says how many were taken. What was trained in ``ImaginedVecEnv(..., hold=k,
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
        _check_steps(steps)
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self.steps = steps
        self._spec = ActionSpec.from_space(env.action_space)
        self.action_space = chunk_space(self._spec, steps)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the actions one after the other; the observation is that of the last step."""
        dtype = self.env.action_space.dtype
        return _take(self.env, np.asarray(action, dtype).reshape(self.steps, *self._spec.shape))


def _check_steps(steps: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"steps: expected an int, got {type(steps).__name__}")
    if steps < 1:
        raise ValueError(f"steps: a decision takes at least 1 step, got {steps}")


def _take(
    env: gym.Env[Any, Any], actions: Iterable[Any]
) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
    """Take actions until they or the episode end; rewards are summed."""
    total, taken = 0.0, 0
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        taken += 1
        if terminated or truncated:
            break
    return observation, total, terminated, truncated, {**info, "steps": taken}
