"""Episodes from what a Stable-Baselines3 algorithm has gathered."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from agents.values import by_part
from worldmodel.data.episodes import Episodes


def from_replay_buffer(
    buffer: ReplayBuffer, *, scaled_actions: bool = True, env_id: str | None = None
) -> Episodes:
    """The episodes of a replay buffer of DQN, SAC, TD3 or DDPG, environment after environment.

    Where the oldest steps were overwritten, the first episodes begin in their middle.

    Args:
        buffer: of an algorithm, ``algorithm.replay_buffer``, or read by
            ``algorithm.load_replay_buffer``. Each step is one decision: after training on
            ``HoldAction`` so is each of the model's.
        scaled_actions: whether a Box's actions lie in [-1, 1], as SB3's algorithms add them,
            whatever the space; they are scaled back.
        env_id: the environment's, if known.

    Raises:
        TypeError: another kind of buffer.
        ValueError: it is empty, lacks the last observations of episodes, or holds what
            ``Episodes.from_arrays`` refuses.

    Example::

        agent = SAC("MlpPolicy", env).learn(10_000)
        episodes = from_replay_buffer(agent.replay_buffer)
    """
    if not isinstance(buffer, ReplayBuffer):
        raise TypeError(
            "buffer: expected a stable_baselines3 ReplayBuffer, DictReplayBuffer or "
            f"HerReplayBuffer, got {type(buffer).__name__}; an algorithm's is its replay_buffer; "
            "agents.RecordEpisodes records while one without learns"
        )
    if buffer.optimize_memory_usage:
        raise ValueError(
            "buffer: with optimize_memory_usage=True the last observation of each episode was "
            "overwritten; train with optimize_memory_usage=False"
        )
    count = buffer.size()
    if not count:
        raise ValueError("buffer: empty; let the algorithm learn first")
    order = (np.arange(count) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size

    def flat(values: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate(list(values[order].swapaxes(0, 1)))

    ended, timeouts = flat(buffer.dones) > 0, flat(buffer.timeouts) > 0
    truncated = timeouts | (np.arange(len(ended)) % count == count - 1)
    space, action_space = buffer.observation_space, buffer.action_space
    spaces, before, after = dict[str, gym.Space[Any]](), dict[str, Any](), dict[str, Any]()
    following = by_part(buffer.next_observations)
    for name, values in by_part(buffer.observations).items():
        part = by_part(space)[name]
        before[name], after[name] = flat(values), flat(following[name])
        if is_image_space(part) and is_image_space_channels_first(part):
            low, high = (np.moveaxis(bound, 0, -1) for bound in (part.low, part.high))
            part = gym.spaces.Box(low, high, dtype=part.dtype.type)
            before[name], after[name] = (np.moveaxis(x[name], 1, -1) for x in (before, after))
        spaces[name] = part
    is_dict = isinstance(space, gym.spaces.Dict)
    actions = flat(buffer.actions).reshape(len(ended), *(action_space.shape or ()))
    if isinstance(action_space, gym.spaces.Box) and scaled_actions:
        low, high = action_space.low, action_space.high
        actions = low + 0.5 * (actions.astype(np.float64) + 1) * (high - low)
        actions = np.clip(actions, low, high)
    return Episodes.from_arrays(
        before if is_dict else before[""],
        actions.astype(action_space.dtype),
        flat(buffer.rewards),
        ended & ~timeouts,
        truncated,
        next_observations=after if is_dict else after[""],
        action_space=action_space,
        observation_space=gym.spaces.Dict(spaces) if is_dict else spaces[""],
        env_id=env_id,
    )
