"""Recorded episodes cut into windows for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.common.config_checks import check_seed
from worldmodel.data.episode import Episode
from worldmodel.data.lazy import LazySequence
from worldmodel.spec import ActionSpec


class WindowBatch:
    """A ``SceneBatch`` of recorded windows; see there."""

    def __init__(
        self, windows: Sequence[tuple[Episode, int]], window: int, device: torch.device
    ) -> None:
        self._windows = windows
        self._device = device
        batch = len(windows)
        action = windows[0][0].actions
        actions = np.empty((batch, window, *action.shape[1:]), action.dtype)
        rewards = np.zeros((batch, window), np.float32)
        terminated = np.zeros((batch, window), bool)
        lengths = np.zeros(batch, np.int64)
        for row, (episode, offset) in enumerate(windows):
            length = min(window, len(episode.actions) - offset)
            actions[row, :length] = episode.actions[offset : offset + length]
            actions[row, length:] = episode.actions[offset + length - 1]  # any of the space
            rewards[row, :length] = episode.rewards[offset : offset + length]
            ended = episode.terminated and offset + length == len(episode.actions)
            terminated[row, length - 1] = ended
            lengths[row] = length
        self.actions = torch.from_numpy(actions).to(device)
        self.rewards = torch.from_numpy(rewards).to(device)
        self.terminated = torch.from_numpy(terminated).to(device)
        self.lengths = torch.from_numpy(lengths).to(device)

    def observations(self, times: Tensor) -> Tensor:
        """(B, n, *observation) at the times int64 (B, n); times after the end show the last."""
        valid = torch.minimum(times.cpu(), self.lengths.cpu()[:, None]).numpy()
        pairs = zip(valid, self._windows, strict=True)
        frames = [episode.observations[offset + steps] for steps, (episode, offset) in pairs]
        return torch.from_numpy(np.stack(frames)).to(self._device)

    def poses(self, times: Tensor) -> None:
        """None: episodes hold no camera poses."""


class WindowSource:
    """A ``SceneSource`` over recorded episodes: batch ``index`` is a function of seed and index.

    Every recorded step is as likely as any other to begin a window, whatever the length of its
    episode. So what happens j steps after the beginning, such as an end, is as frequent in the
    windows as after the recorded steps, where imagined episodes begin. A window near an episode's
    end is shorter. The share of windows that begin where an episode does is episodes / steps.
    """

    env_id: str | None = None

    def __init__(
        self,
        episodes: Sequence[Episode],
        lengths: NDArray[np.int64],
        action: ActionSpec,
        window: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        whole: bool = False,
    ) -> None:
        if window < 1 or batch_size < 1:
            raise ValueError(
                f"window, batch_size: expected at least 1, got {window} and {batch_size}"
            )
        check_seed(seed)
        self.episodes, self.window, self.batch_size = episodes, window, batch_size
        self.seed, self.device = seed, device
        self.action_space = action.to_space()
        self.beginnings = np.maximum(lengths - window + 1, 1) if whole else lengths
        self._ends = np.cumsum(self.beginnings)

    def batch(self, index: int) -> WindowBatch:
        """The batch of that index, always the same one."""
        random = np.random.default_rng([self.seed, index])
        steps = random.integers(int(self._ends[-1]), size=self.batch_size)
        windows = [self._window(int(step)) for step in steps]
        return WindowBatch(windows, self.window, self.device)

    def _window(self, step: int) -> tuple[Episode, int]:
        """The episode, and where in it the window begins, of a step among all beginnings."""
        number = int(np.searchsorted(self._ends, step, side="right"))
        offset = step - int(self._ends[number] - self.beginnings[number])
        episode = self.episodes[number]
        if isinstance(self.episodes, LazySequence):
            return _copy(episode, offset, self.window), 0
        return episode, offset


def _copy(episode: Episode, offset: int, window: int) -> Episode:
    """A part of an episode; it keeps no shard in memory."""
    end = min(offset + window, len(episode.actions))
    return replace(
        episode,
        observations=episode.observations[offset : end + 1].copy(),
        actions=episode.actions[offset:end].copy(),
        rewards=episode.rewards[offset:end].copy(),
        terminated=episode.terminated and end == len(episode.actions),
        masks=None,  # of which windows make no use
    )
