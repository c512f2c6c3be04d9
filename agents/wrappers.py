"""Gymnasium wrappers that give a real environment the rhythm of an imagined one."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym


class HoldAction(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Hold every action for some steps: one decision of the agent is that many steps of the scene.

    Rewards are summed; the hold stops early where the episode ends. ``info["steps"]`` says how
    many steps were taken. What was trained in ``ImaginedVecEnv(..., jump=k)`` runs on
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
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise TypeError(f"steps: expected an int, got {type(steps).__name__}")
        if steps < 1:
            raise ValueError(f"steps: an action is held for at least 1 step, got {steps}")
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        self.steps = steps

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the action up to ``steps`` times; the observation is that of the last step."""
        total, taken = 0.0, 0
        while True:
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            taken += 1
            if terminated or truncated or taken == self.steps:
                return observation, total, terminated, truncated, {**info, "steps": taken}
