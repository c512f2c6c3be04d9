"""An episode while it is played: its next action, and what has happened so far."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.data.env_checks import (
    check_rounding,
    checked_masks,
    checked_observation,
    checked_reward,
    sample_legal,
    unrounded,
)
from worldmodel.data.episode import Episode
from worldmodel.spec import Spec

Policy = Callable[[Any], Any]


class EpisodeRecorder:
    """Chooses and records the actions of an episode.

    Args:
        owner: the environment and episode that error messages name.
        spec: of the environment's spaces.
        observation: of the reset.
        action_space: of one environment; random actions are its samples.
        policy: observation to action; None samples.
        hold: steps for which each action is held.
        max_steps: the episode is over after so many.
        masks: the environment's ``action_masks``, if it has them: recorded, and respected by random
            actions.

    Attributes:
        over: whether no step is to follow.

    Raises:
        ValueError: an observation or reward is not what the spaces say; it names the step.
    """

    def __init__(
        self,
        owner: str,
        spec: Spec,
        observation: Any,
        action_space: gym.Space[Any],
        policy: Policy | None,
        hold: int,
        max_steps: int,
        masks: Callable[[], Any] | None = None,
    ) -> None:
        self.owner, self.spec, self.action_space = owner, spec, action_space
        self.policy, self.hold, self.max_steps = policy, hold, max_steps
        self._action_masks = masks
        self._masks: list[NDArray[np.bool_]] = []
        self.over = self._terminated = False
        self._frames: list[NDArray[Any]] = []
        self._exact: list[NDArray[Any]] = []
        self._actions: list[NDArray[Any]] = []
        self._rewards: list[float] = []
        self._held: Any = None
        self._observe(observation, f"{owner}, reset")

    def action(self) -> Any:
        """The action of the next step: a copy, since environments may change theirs in place."""
        if len(self._actions) % self.hold == 0:
            self._held = deepcopy(self._choose())
        return deepcopy(self._held)

    def _choose(self) -> Any:
        if self.policy is not None:  # a copy: a policy may change its observation
            return self.policy(self.spec.unpack(self._frames[-1].copy()))
        if self._masks:
            step = f"{self.owner}, step {len(self._frames)}"
            return sample_legal(self.action_space, self._masks[-1], step)
        return self.action_space.sample()

    def add(self, observation: Any, reward: Any, terminated: bool, truncated: bool) -> None:
        """Record what the action led to."""
        step = f"{self.owner}, step {len(self._frames)}"
        self._observe(observation, step)
        self._actions.append(np.array(self._held))
        self._rewards.append(checked_reward(reward, step))
        self._terminated = terminated
        self.over = terminated or truncated or len(self._actions) >= self.max_steps

    def episode(self) -> Episode:
        """All that was recorded."""
        try:
            check_rounding(self._exact, self.spec)
            with np.errstate(over="ignore"):  # Episode refuses what float32 cannot hold
                rounded = np.array(self._rewards, np.float32)
            masks = np.stack(self._masks) if self._masks else None
            return Episode(
                np.stack(self._frames), np.stack(self._actions), rounded, self._terminated, masks
            )
        except ValueError as error:
            raise ValueError(f"{self.owner}: {error}") from error

    def _observe(self, observation: Any, step: str) -> None:
        if self._action_masks is not None:
            self._masks.append(checked_masks(self._action_masks(), self.spec.action, step))
        self._frames.append(checked_observation(observation, self.spec, step))
        self._exact += unrounded(observation, self.spec)
