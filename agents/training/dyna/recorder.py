"""Record the episodes of an environment while an agent learns in it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from worldmodel.data.env_checks import env_name, mask_function
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.recorder import EpisodeBuffer
from worldmodel.spec import Spec


class RecordEpisodes(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Record every step, for a world model to learn from; nothing else is changed.

    It belongs **inside** ``HoldAction``, so that it records the frames between decisions too.

    Args:
        env: an environment with uint8 (H, W, C) or float (D,) observations.
        max_steps: when more steps are recorded, the oldest episodes are dropped; the latest one is
            always held in full. None drops nothing.

    Attributes:
        total: steps since it was made, dropped ones too.

    Raises:
        ValueError: a space is not supported, or ``max_steps`` is below 1.

    Example:
        >>> recorder = RecordEpisodes(gym.make("CartPole-v1"))
        >>> env = HoldAction(recorder, 3)
        >>> _ = env.reset(seed=0)
        >>> _ = env.step(1)
        >>> recorder.episodes()[0].observations.shape
        (4, 4)
    """

    def __init__(self, env: gym.Env[Any, Any], max_steps: int | None = None) -> None:
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, or None, got {max_steps}")
        gym.utils.RecordConstructorArgs.__init__(self, max_steps=max_steps)
        gym.Wrapper.__init__(self, env)
        self._spaces = Spec.from_spaces(env.observation_space, env.action_space, window=1)
        self._legal = mask_function(env, self._spaces.action)
        self.max_steps = max_steps
        self.total = 0
        self._steps = 0
        self._finished: list[tuple[int, Episode]] = []  # each with the total where it began
        self._buffer: EpisodeBuffer | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; an unfinished one counts as truncated.

        Raises:
            ValueError: the observation is not in the space; see ``step``.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._finish(terminated=False)
        owner = f"env: {env_name(self.env)}, episode of seed {seed}"
        self._buffer = EpisodeBuffer(owner, self._spaces, observation, self._legal)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step and record it.

        Raises:
            gymnasium.error.ResetNeeded: no episode is under way.
            ValueError: the observation has another shape than the space, or is an image of numbers
                that uint8 cannot hold, or the reward is no number. The step is not recorded.
        """
        if self._buffer is None:
            raise gym.error.ResetNeeded("RecordEpisodes: no episode is under way; call reset()")
        copied = np.array(action, self.action_space.dtype)
        observation, reward, terminated, truncated, info = self.env.step(deepcopy(action))
        self._buffer.add(copied, observation, reward)
        self.total += 1
        self._steps += 1
        if terminated or truncated:
            self._finish(bool(terminated))
        self._drop()
        return observation, reward, terminated, truncated, info

    @property
    def steps(self) -> int:
        """Recorded steps, those of the unfinished episode too."""
        return self._steps

    @property
    def under_way(self) -> bool:
        """Whether an episode has begun and not ended."""
        return self._buffer is not None

    def episodes(self, after: int = 0) -> Episodes:
        """The recorded episodes, the oldest first; an unfinished one is last, as truncated.

        Args:
            after: omit episodes that began before so many steps (``total``).

        Raises:
            ValueError: there is no step.
        """
        return merge_episodes([self], [after])

    def recorded(self, after: int = 0) -> list[Episode]:
        """As ``episodes``, as a list; it may be empty."""
        chosen = [episode for begin, episode in self._finished if begin >= after]
        buffer = self._buffer
        if buffer is not None and buffer.steps and self.total - buffer.steps >= after:
            chosen.append(buffer.episode(terminated=False))
        return chosen

    def restore(self, episodes: Episodes, total: int) -> None:
        """Record these episodes instead, as if they were the last of ``total`` steps."""
        begin = total - episodes.steps
        self._finished = []
        for episode in episodes:
            self._finished.append((begin, episode))
            begin += len(episode.actions)
        self._steps, self.total = episodes.steps, total

    def _finish(self, terminated: bool) -> None:
        if self._buffer is not None and self._buffer.steps:
            begin = self.total - self._buffer.steps
            self._finished.append((begin, self._buffer.episode(terminated)))
        self._buffer = None

    def _drop(self) -> None:
        latest = 0 if self._buffer is not None and self._buffer.steps else 1
        while self.max_steps is not None and self._steps > self.max_steps:
            if len(self._finished) == latest:
                return
            self._steps -= len(self._finished.pop(0)[1].actions)


def merge_episodes(
    recorders: Sequence[RecordEpisodes], after: Sequence[int] | None = None
) -> Episodes:
    """The episodes of several environments as one set: all of the first, then of the second, ...

    Args:
        recorders: at least one; their spaces agree.
        after: for each recorder, as in ``RecordEpisodes.episodes``; None takes all episodes.

    Raises:
        ValueError: there are none, their spaces differ, or none has a step.
    """
    if not recorders:
        raise ValueError("recorders: empty; give at least one RecordEpisodes")
    spec = recorders[0]._spaces
    for number, recorder in enumerate(recorders):
        spec.check_spaces(recorder.observation_space, recorder.action_space, f"recorders[{number}]")
    begins = [0] * len(recorders) if after is None else after
    episodes = [
        episode
        for recorder, begin in zip(recorders, begins, strict=True)
        for episode in recorder.recorded(begin)
    ]
    if not episodes:
        raise ValueError("recorders: no step has been taken yet; step the environment first")
    return Episodes(episodes, spec.action, spec.observation_space())
