"""Estimates of the return that follows the end of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor

from worldmodel.base import WorldModel
from worldmodel.types import Queries, Worlds

Value = Callable[[Any], Any]
"""Observations (n, *observation), uint8 images (H, W, C), float vectors or a dict of them, to n
numbers."""


def terminal_value(
    model: WorldModel, worlds: Worlds, times: Tensor, plans: Tensor, value: Value, at_once: int
) -> Tensor:
    """The value (B, S, N), float32, of what B x S worlds show at one time of each plan.

    Only the frames at ``times`` (B, 1), steps from each window's origin, are rendered; plans
    (B, N, L, \\*action) reach them. About ``at_once`` worlds x plans are rendered at once.

    Raises:
        ValueError: ``value`` returns another shape than (n,), NaN or infinity.
    """
    batch, samples = worlds.shape
    values = []
    for part in plans.split(max(1, at_once // (batch * samples)), 1):
        observations = model.predict(worlds, Queries(times, part)).observations
        assert observations is not None
        frames = model.spec.to_numpy(observations[:, :, :, 0])
        frames = frames.reshape(-1, *model.spec.border[0])
        numbers = torch.as_tensor(value(model.spec.unpack(frames))).detach()
        if numbers.shape != (len(frames),):
            raise ValueError(
                f"value: expected one number for each of {len(frames)} observations, got shape "
                f"{tuple(numbers.shape)}"
            )
        if not bool(torch.isfinite(numbers).all()):
            raise ValueError("value: returned NaN or infinity")
        values.append(numbers.to(model.device, torch.float32).view(observations.shape[:3]))
    return torch.cat(values, 2)


def critic(algorithm: BaseAlgorithm) -> Value:
    """The value function that an SB3 algorithm has learned, for ``Planner(value=...)``.

    The critic of an actor-critic policy (PPO, A2C), or the best action's Q-value (DQN), with the
    weights that the algorithm has at each call. Its ``gamma`` is per decision and the planner's
    ``discount`` per step: with a policy that decides every k steps, use a discount of
    ``gamma ** (1 / k)``.

    Args:
        algorithm: trained on the environment's own observations, without frame stack or
            ``VecNormalize``.

    Raises:
        TypeError: it has neither of the two, or its observation space is no Box or Dict.
        ValueError: it was trained behind ``VecNormalize``; or, when the value is called, on other
            observations.
    """
    policy = getattr(algorithm, "policy", None)
    if not isinstance(policy, (ActorCriticPolicy, DQNPolicy)):
        raise TypeError(
            "algorithm: expected an SB3 algorithm with a critic of observations (PPO, A2C) or a "
            f"Q-network (DQN), got {type(algorithm).__name__}"
        )
    space = policy.observation_space
    if not isinstance(space, gym.spaces.Box | gym.spaces.Dict):
        raise TypeError(f"algorithm: its policy sees {space}; expected a Box or a Dict")
    if algorithm.get_vec_normalize_env() is not None:
        raise ValueError(
            "algorithm: was trained behind VecNormalize, so its value is of scaled observations "
            "and rewards; train without, or pass a function that undoes it"
        )
    trained = by_part(space)

    def value(observations: Any) -> Tensor:
        frames = by_part(observations)
        if frames.keys() != trained.keys():
            raise ValueError(
                f"algorithm: its policy sees the parts {list(trained)}, the model shows "
                f"{list(frames)}"
            )
        for name, frame in frames.items():
            _check_shape(frame.shape[1:], trained[name].shape)
        policy.set_training_mode(False)
        with torch.no_grad():
            inputs, _ = policy.obs_to_tensor(observations)
            if isinstance(policy, DQNPolicy):
                return torch.as_tensor(policy.q_net(inputs)).amax(1)
            return policy.predict_values(inputs).flatten()

    return value


def by_part(whole: Any) -> dict[str, Any]:
    """The parts of a Dict space or observation, or the only one, under no name."""
    if isinstance(whole, gym.spaces.Dict):
        return dict(whole.spaces)
    return dict(whole) if isinstance(whole, Mapping) else {"": whole}


def _check_shape(frame: tuple[int, ...], trained: tuple[int, ...]) -> None:
    """Raise ValueError unless a policy takes the frame; its images may have channels first."""
    if sorted(frame) == sorted(trained):
        return
    hint, (fewer, *sides), (more, *own_sides) = "", sorted(frame), sorted(trained)
    if sides == own_sides and more % fewer == 0:
        hint = "; a plan ends in one frame: train the policy with frame_stack=1"
    raise ValueError(
        f"algorithm: its policy sees observations {trained}, the model shows {frame}{hint}"
    )
