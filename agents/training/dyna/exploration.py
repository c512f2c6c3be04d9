"""What an algorithm sees of imagined observations, and how it acts on them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
    VecVideoRecorder,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from agents.values import by_part


class WrappedObservations:
    """Shows batches of any size as an environment's wrappers do: transposed and stacked alike.

    Args:
        env: whose wrappers to follow.

    Raises:
        ValueError: it has a wrapper of another kind.
    """

    def __init__(self, env: VecEnv) -> None:
        self._wrappers: list[VecEnvWrapper] = []
        self._stacks: list[Any] = []
        while isinstance(env, VecEnvWrapper):
            if type(env) in (VecTransposeImage, VecFrameStack):
                self._wrappers.insert(0, env)
            elif type(env) not in (VecMonitor, VecCheckNan, VecVideoRecorder):
                raise ValueError(
                    f"env: cannot show imagined episodes as {type(env).__name__} shows real ones; "
                    "use VecTransposeImage and VecFrameStack only, and put other wrappers into "
                    "the environments, inside RecordEpisodes"
                )
            env = env.venv
        self.inner = env

    def reset(self, observations: Any) -> Any:
        """Show the first observations of n episodes."""
        self._stacks = [None] * len(self._wrappers)
        return self.update(observations)

    def update(self, observations: Any) -> Any:
        """Show the next observations of the same episodes."""
        for number, wrapper in enumerate(self._wrappers):
            if isinstance(wrapper, VecFrameStack):
                stack = wrapper.stacked_obs
                observations = _stack(stack, observations, self._stacks[number])
                self._stacks[number] = observations
            elif isinstance(wrapper, VecTransposeImage):
                observations = wrapper.transpose_observations(observations)
        return observations

    def select(self, rows: NDArray[np.int64]) -> None:
        """Go on with the episodes ``rows`` alone."""
        self._stacks = [None if stack is None else pick(stack, rows) for stack in self._stacks]


def _stack(stack: StackedObservations[Any], latest: Any, before: Any) -> Any:
    """The latest observations after those before, of which the oldest is dropped."""
    if isinstance(latest, dict):
        return {
            name: _stack(
                stack.sub_stacked_observations[name], part, None if before is None else before[name]
            )
            for name, part in latest.items()
        }
    axis = stack.stack_dimension
    if before is None:
        before = np.zeros((len(latest), *stack.stacked_shape), latest.dtype)
    size = before.shape[axis] - latest.shape[axis]
    rest = before[:, -size:] if axis == 1 else before[..., -size:]
    return np.concatenate([rest, latest], axis)


def pick(observations: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of observations, or of each part of a Dict."""
    if isinstance(observations, dict):
        return {name: part[rows] for name, part in observations.items()}
    return observations[rows]


class Exploration:
    """An algorithm's exploration in a batch: each row explores on its own.

    SAC and TQC sample from their policies; TD3 and DDPG add their action noise, if any, which
    begins anew in each branch; DQN and QR-DQN take a random action with the probability
    ``exploration_rate``. Algorithms with gSDE draw new noise in each step.

    Args:
        algorithm: the one that learns.
        size: the most rows at once.
        seed: of the random choices of DQN and QR-DQN; other noise is samples as SB3 draws it.
    """

    def __init__(self, algorithm: OffPolicyAlgorithm, size: int, seed: int) -> None:
        self.algorithm = algorithm
        self._random = np.random.default_rng(seed)
        self._noise: VectorizedActionNoise | None = None
        noise = algorithm.action_noise
        if noise is not None:
            base: ActionNoise = (
                noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise
            )
            self._noise = VectorizedActionNoise(base, size)

    def begin(self) -> None:
        """Begin new branches."""
        if self._noise is not None:
            self._noise.reset()

    def act(self, observations: Any, rows: NDArray[np.int64]) -> tuple[Any, NDArray[Any]]:
        """Actions for the environment, and the same as the replay buffer holds them.

        Args:
            observations: (n, \\*observation), or a dict of such.
            rows: int64 (n,), which of the branches these are.
        """
        algorithm, space = self.algorithm, self.algorithm.action_space
        count = len(next(iter(by_part(observations).values())))
        if algorithm.use_sde:
            actor: Any = algorithm.actor  # of SAC and TQC
            actor.reset_noise(count)
        discrete = isinstance(space, gym.spaces.Discrete)
        actions, _ = algorithm.predict(observations, deterministic=discrete)
        if isinstance(space, gym.spaces.Discrete):
            rate = getattr(algorithm, "exploration_rate", 0.0)
            samples = space.start + self._random.integers(space.n, size=count)
            actions = np.where(self._random.random(count) < rate, samples, actions)
        if not isinstance(space, gym.spaces.Box):
            return actions, actions
        scaled = algorithm.policy.scale_action(actions)
        if self._noise is not None:
            noise = np.stack([self._noise.noises[row]() for row in rows])
            scaled = np.clip(scaled + noise, -1, 1)
        return algorithm.policy.unscale_action(scaled), scaled
