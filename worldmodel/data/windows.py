"""Recorded episodes cut into windows for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodel.common.config_checks import check_seed
from worldmodel.data.episode import Episode
from worldmodel.data.lazy import LazySequence
from worldmodel.spec import ActionSpec


class WindowBatch:
    """A ``RecordedBatch`` of windows; see there."""

    def __init__(
        self,
        windows: Sequence[tuple[Episode, int]],
        window: int,
        device: torch.device,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._windows = windows
        self._device = device
        self.rows = torch.from_numpy(np.arange(len(windows)) if rows is None else rows).to(device)
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


@dataclass(frozen=True)
class FlatEpisodes:
    """All steps of vector episodes one after another, to cut windows without a loop over them.

    Attributes:
        observations: float32 (N + episodes, D).
        actions, rewards: (N, \\*action), float32 (N,).
        terminated: bool (N,), steps that ended their episode.
        ends: int64 (N,), the number after the last step of each step's episode.
        shift: int64 (N,), how many observations more than steps lie before a step.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    ends: Tensor
    shift: Tensor

    @classmethod
    def of(
        cls, episodes: Sequence[Episode], lengths: NDArray[np.int64], device: torch.device
    ) -> FlatEpisodes:
        """A copy of all arrays, on a device."""
        ends = lengths.cumsum()
        terminated = np.zeros(ends[-1], bool)
        terminated[ends - 1] = [episode.terminated for episode in episodes]
        arrays = (
            np.concatenate([episode.observations for episode in episodes]),
            np.concatenate([episode.actions for episode in episodes]),
            np.concatenate([episode.rewards for episode in episodes]),
            terminated,
            ends.repeat(lengths),
            np.arange(len(lengths)).repeat(lengths),
        )
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


class FlatBatch:
    """A ``RecordedBatch`` of windows of vectors; what ``WindowBatch`` returns, without its loops.

    Args:
        flat: the recorded steps.
        rows: int64 (B,), the step at which each window begins.
        window: steps of a window.
    """

    def __init__(self, flat: FlatEpisodes, rows: Tensor, window: int) -> None:
        self._flat, self.rows = flat, rows
        self.lengths = (flat.ends[rows] - rows).clamp_max(window)
        steps = torch.arange(window, device=rows.device)
        last = self.lengths[:, None] - 1
        index = rows[:, None] + torch.minimum(steps, last)
        after = steps > last
        self.actions = flat.actions[index]
        self.rewards = flat.rewards[index].masked_fill(after, 0.0)
        self.terminated = flat.terminated[index] & ~after

    def observations(self, times: Tensor) -> Tensor:
        """(B, n, D) at the times int64 (B, n); times after the end show the last."""
        valid = torch.minimum(times, self.lengths[:, None])
        return self._flat.observations[(self.rows + self._flat.shift[self.rows])[:, None] + valid]

    def poses(self, times: Tensor) -> None:
        """None: episodes hold no camera poses."""


class WindowSource:
    """A ``RecordedSource``: windows of episodes; a batch is a function of seed and index.

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
        self.steps = int(lengths.sum())
        self._lengths, self._firsts = lengths, lengths.cumsum() - lengths
        self._flat: FlatEpisodes | None = None
        in_memory = not isinstance(episodes, LazySequence)
        if in_memory and episodes[0].observations.dtype == np.float32:
            self._flat = FlatEpisodes.of(episodes, lengths, device)

    def batch(self, index: int) -> WindowBatch | FlatBatch:
        """The batch of that index, always the same one."""
        random = np.random.default_rng([self.seed, index])
        return self._cut(random.integers(int(self._ends[-1]), size=self.batch_size))

    def sweep(self, steps: int) -> Iterator[WindowBatch | FlatBatch]:
        """Batches of windows end to end, that hold each recorded step once.

        Args:
            steps: at most so many, about: of more, windows from all over the recording.
        """
        parts = [np.arange(0, length, self.window) for length in self._lengths]
        starts = np.concatenate(
            [first + part for first, part in zip(self._firsts, parts, strict=True)]
        )
        starts = starts[:: -(-len(starts) * self.window // max(steps, self.window))]
        for begin in range(0, len(starts), self.batch_size):
            yield self._at(starts[begin : begin + self.batch_size])

    def _cut(self, beginnings: NDArray[np.int64]) -> WindowBatch | FlatBatch:
        """Windows by their number among all beginnings."""
        numbers = np.searchsorted(self._ends, beginnings, side="right")
        return self._at(
            beginnings - (self._ends - self.beginnings)[numbers] + self._firsts[numbers]
        )

    def _at(self, rows: NDArray[np.int64]) -> WindowBatch | FlatBatch:
        """Windows by the step at which they begin, among all recorded ones."""
        if self._flat is not None:
            return FlatBatch(self._flat, torch.from_numpy(rows).to(self.device), self.window)
        windows = [self._window(int(row)) for row in rows]
        return WindowBatch(windows, self.window, self.device, rows)

    def _window(self, row: int) -> tuple[Episode, int]:
        """The episode, and where in it the window begins, of a recorded step."""
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        offset = row - int(self._firsts[number])
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
