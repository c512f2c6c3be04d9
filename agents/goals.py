"""Goal environments: the reward is a function of the goal that was achieved and the desired one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldmodel.spec import Spec

GOALS = ("achieved_goal", "desired_goal")

Parts = Mapping[str, Tensor]
"""P observations by part, (P, \\*part) each, as models see them."""


def goal_reward(env: gym.Env[Any, Any]) -> Callable[[Parts, Tensor, Parts], Tensor]:
    """The environment's ``compute_reward`` (as for hindsight experience replay) for imagined steps.

    Args:
        env: a goal environment; its observations are Dicts with ``achieved_goal`` and
            ``desired_goal``.

    Returns:
        a function of P observations by part, actions and next observations by part to float32
        (P,): ``compute_reward(achieved_goal, desired_goal, infos)`` of the next observations, with
        an empty info for each.

    Raises:
        TypeError: the environment has no ``compute_reward``.
        ValueError: its observations have no such parts, or what it computes is not a reward for
            each step.

    Example::

        known = KnownFunctions(reward=goal_reward(gym.make("FetchReach-v4")))
        ImaginedVecEnv(model, episodes, known=known)
    """
    compute = getattr(env.unwrapped, "compute_reward", None)
    if not callable(compute):
        raise TypeError(
            f"env: expected an environment with compute_reward(achieved_goal, desired_goal, info), "
            f"got {type(env.unwrapped).__name__}"
        )
    spec = Spec.from_spaces(env.observation_space, env.action_space, window=1)
    dtypes = {part.name: part.dtype for part in spec.parts}
    if not dtypes.keys() >= set(GOALS):
        raise ValueError(f"env: its observations lack {GOALS}, got {env.observation_space}")

    def reward(observation: Parts, action: Tensor, following: Parts) -> Tensor:
        goals = (following[name].cpu().numpy().astype(dtypes[name]) for name in GOALS)
        count = len(action)
        rewards = np.asarray(compute(*goals, [{} for _ in range(count)]))
        if rewards.shape != (count,):
            raise ValueError(
                f"env: compute_reward returned shape {rewards.shape} for {count} goals, expected "
                f"({count},)"
            )
        return torch.from_numpy(rewards.astype(np.float32)).to(following[GOALS[0]].device)

    return reward
