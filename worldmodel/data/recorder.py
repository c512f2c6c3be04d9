"""An episode while it is played: what has happened so far, and its next action."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodel.data.env_checks import (
    check_reward_rounding,
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


class EpisodeBuffer:
    """The steps of an episode so far, each checked before it is recorded.

    Args:
        owner: the environment and episode that error messages name.
        spec: of the environment's spaces.
        observation: of the reset.
        masks: the environment's ``action_masks``, if it has them; recorded with each observation.

    Attributes:
        steps: how many were added.

    Raises:
        ValueError: an observation, reward or mask is not what the spaces say; it names the step,
            which is not recorded.
    """

    def __init__(
        self, owner: str, spec: Spec, observation: Any, masks: Callable[[], Any] | None = None
    ) -> None:
        self.owner, self.spec, self._action_masks = owner, spec, masks
        self._frames: list[NDArray[Any]] = []
        self._exact: list[NDArray[Any]] = []  # vectors, before they are rounded
        self._actions: list[NDArray[Any]] = []
        self._rewards: list[float] = []
        self._masks: list[NDArray[np.bool_]] = []
        self._observe(observation, f"{owner}, reset")

    @property
    def steps(self) -> int:
        """How many were added."""
        return len(self._actions)

    @property
    def next_step(self) -> str:
        """What error messages call the step that comes next."""
        return f"{self.owner}, step {self.steps + 1}"

    @property
    def frame(self) -> NDArray[Any]:
        """The latest observation, as it is recorded."""
        return self._frames[-1]

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Which actions are legal now; None without masks."""
        return self._masks[-1] if self._masks else None

    def add(self, action: NDArray[Any], observation: Any, reward: Any) -> None:
        """Record what an action led to; ``action`` is the caller's own copy."""
        number = checked_reward(reward, self.next_step)
        self._observe(observation, self.next_step)
        self._actions.append(action)
        self._rewards.append(number)

    def episode(self, terminated: bool) -> Episode:
        """All that was recorded, ended by its last step or truncated."""
        try:
            check_rounding(self._exact, self.spec)
            check_reward_rounding(np.array(self._rewards))
            with np.errstate(over="ignore"):  # Episode refuses what float32 cannot hold
                rounded = np.array(self._rewards, np.float32)
            masks = np.stack(self._masks) if self._masks else None
            return Episode(
                np.stack(self._frames), np.stack(self._actions), rounded, terminated, masks
            )
        except ValueError as error:
            raise ValueError(f"{self.owner}: {error}") from error

    def _observe(self, observation: Any, step: str) -> None:
        frame = checked_observation(observation, self.spec, step)
        if self._action_masks is not None:
            self._masks.append(checked_masks(self._action_masks(), self.spec.action, step))
        self._frames.append(frame)
        self._exact += unrounded(observation, self.spec)


class EpisodeRecorder:
    """Chooses the actions of an episode and records it.

    Args:
        owner, spec, observation: as for ``EpisodeBuffer``.
        action_space: of one environment; random actions are its samples.
        policy: observation to action; None samples.
        hold: steps for which each action is held.
        max_steps: the episode is over after so many.
        masks: as for ``EpisodeBuffer``; random actions respect them.

    Attributes:
        over: whether no step is to follow.

    Raises:
        ValueError: as for ``EpisodeBuffer``.
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
        self.action_space, self.policy = action_space, policy
        self.hold, self.max_steps = hold, max_steps
        self.over = self._terminated = False
        self._buffer = EpisodeBuffer(owner, spec, observation, masks)
        self._held: Any = None

    def action(self) -> Any:
        """The action of the next step: a copy, since environments may change theirs in place."""
        if self._buffer.steps % self.hold == 0:
            self._held = deepcopy(self._choose())
        return deepcopy(self._held)

    def _choose(self) -> Any:
        buffer = self._buffer
        if self.policy is not None:  # a copy: a policy may change its observation
            return self.policy(buffer.spec.unpack(buffer.frame.copy()))
        if buffer.mask is not None:
            return sample_legal(self.action_space, buffer.mask, buffer.next_step)
        return self.action_space.sample()

    def add(self, observation: Any, reward: Any, terminated: bool, truncated: bool) -> None:
        """Record what the action led to."""
        self._buffer.add(np.array(self._held), observation, reward)
        self._terminated = terminated
        self.over = terminated or truncated or self._buffer.steps >= self.max_steps

    def episode(self) -> Episode:
        """All that was recorded."""
        return self._buffer.episode(self._terminated)
