"""Recorded episodes: in memory, and on disk."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.common.files import atomic, locked
from worldmodel.common.safe_files import check_memory
from worldmodel.data.arrays import as_array, cut_arrays
from worldmodel.data.env_checks import warn_of_codes
from worldmodel.data.episode import Episode
from worldmodel.data.lazy import LazySequence, ShardCache
from worldmodel.data.shards import (
    EPISODES_PER_SHARD,
    Shard,
    ShardEntry,
    read_meta,
    shard_counts,
    step_by_step,
    unpacked_size,
    write_meta,
    write_shard,
)
from worldmodel.data.windows import WindowSource
from worldmodel.spec import ActionSpec, Spec
from worldmodel.spec.parts import Part, number_name, parts_of, vectors


class Episodes:
    """A set of episodes of one environment.

    Args:
        episodes: at least one; observation and action shapes agree.
        action: what their actions are.
        observation_space: the environment's; None for images, or vectors without bounds. Of
            a Dict the episodes hold what ``Spec.pack`` makes of its parts.
        env_id: the environment's, if known; models that are trained on them take it.

    Raises:
        TypeError: something else than episodes, an ``ActionSpec`` and a Box.
        ValueError: there is none, shapes differ, an action is none of the space, or only some have
            masks.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        action: ActionSpec,
        observation_space: gym.Space[Any] | None = None,
        env_id: str | None = None,
    ) -> None:
        if not isinstance(action, ActionSpec):
            raise TypeError(
                f"action: expected a worldmodel.ActionSpec, got {type(action).__name__}; "
                "ActionSpec.from_space makes one of a Gymnasium space"
            )
        if isinstance(episodes, np.ndarray | Episode) or (
            len(episodes) and not isinstance(episodes[0], Episode)
        ):
            raise TypeError(
                f"episodes: expected a list of worldmodel.Episode, got {type(episodes).__name__}; "
                "Episodes.from_arrays makes them of arrays"
            )
        if not len(episodes):
            raise ValueError("episodes: empty; record at least one")
        first = episodes[0]
        lengths, ranges = list[int](), list[Any]()
        for number, episode in enumerate(episodes):
            if episode.observations.shape[1:] != first.observations.shape[1:]:
                raise ValueError(
                    f"episodes[{number}]: observations are {episode.observations.shape[1:]}, those "
                    f"of the first episode {first.observations.shape[1:]}"
                )
            action.check(episode.actions, f"episodes[{number}]")
            lengths.append(len(episode.actions))
            if episode.observations.ndim == 2:
                numbers = _vectors_of(episode.observations, observation_space)
                ranges.append([numbers.min(0), numbers.max(0)])
            _check_masks(episode, first, action, f"episodes[{number}]")
        self.episodes = episodes if isinstance(episodes, LazySequence) else list(episodes)
        self.lengths = np.array(lengths)
        self.action = action
        self.env_id = env_id
        if not isinstance(observation_space, gym.Space | None):
            raise TypeError(
                "observation_space: expected a Gymnasium space, or None, got "
                f"{type(observation_space).__name__}"
            )
        self.observation_space = observation_space or _space_of(first.observations)
        self._range = None
        if ranges:
            least, most = zip(*ranges, strict=True)
            self._range = np.min(least, 0), np.max(most, 0)
        border = self.spec(1).border
        if border != (first.observations.shape[1:], first.observations.dtype):
            raise ValueError(
                f"observation_space: {self.observation_space} does not fit observations of "
                f"{first.observations.dtype} {first.observations.shape[1:]}"
            )

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminated: Any,
        truncated: Any = None,
        *,
        next_observations: Any = None,
        masks: Any = None,
        action_space: gym.Space[Any],
        observation_space: gym.Space[Any] | None = None,
        env_id: str | None = None,
    ) -> Episodes:
        """Episodes from N logged steps, one after the other, episode after episode.

        An episode ends where ``terminated`` or ``truncated`` says so, and with the last step.

        Args:
            observations: before each step, (N, \\*observation), with ``next_observations``; or
                all, (N + episodes, \\*observation): before each step, and each episode's last. Of
                Dicts a dict of such arrays.
            actions: (N, \\*action).
            rewards: (N,).
            terminated: bool (N,), steps that ended their episode.
            truncated: bool (N,), steps after which it was cut, by a time limit say; None: none.
            next_observations: after each step, (N, \\*observation).
            masks: bool (N, n), which of n choices were legal before each step, as in
                ``Episode.masks``; those of last observations are False. None: there are none.
            action_space: the environment's.
            observation_space: the environment's; None for uint8 images (H, W, C), or vectors (D,)
                without bounds.
            env_id: the environment's, if known.

        Raises:
            ValueError: shapes do not fit each other or the spaces, a flag is no bool, an episode
                goes on elsewhere than at the observation before, float32 cannot hold how vectors
                change, or a value is none that ``Episode`` takes.
        """
        if observation_space is None:
            if isinstance(observations, Mapping):
                raise ValueError("observation_space: give that of the Dicts")
            observation_space = _space_of(as_array(observations, "observations"))
        spec = Spec.from_spaces(observation_space, action_space, 1)
        episodes = cut_arrays(
            spec, observations, actions, rewards, terminated, truncated, next_observations, masks
        )
        made = cls(episodes, spec.action, observation_space, env_id)
        made.warn_of_numbers()
        return made

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, number: int) -> Episode:
        return self.episodes[number]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)

    def __add__(self, other: Episodes) -> Episodes:
        """These episodes, and then the others.

        Raises:
            ValueError: their spaces differ.
        """
        if not isinstance(other, Episodes):
            return NotImplemented
        other.spec(1).check_spaces(self.observation_space, self.action.to_space(), "episodes")
        env_id = self.env_id if self.env_id == other.env_id else None
        return Episodes([*self, *other], self.action, self.observation_space, env_id)

    def spec(self, window: int) -> Spec:
        """What a model of these episodes is made for: it looks across ``window`` steps."""
        spec = Spec.from_spaces(self.observation_space, self.action.to_space(), window)
        if self._range is None or not self.outside:
            return spec
        least, most = (tuple(map(float, bound)) for bound in self._range)
        return replace(spec, least=least, most=most)

    @property
    def outside(self) -> str:
        """What lies beyond the bounds of vectors that the environment declares; "" if nothing."""
        if self._range is None:
            return ""
        least, most = self._range
        spec = Spec.from_spaces(self.observation_space, self.action.to_space(), 1)
        exact = spec.bounds
        with np.errstate(over="ignore"):  # recorded numbers are rounded: so are the bounds
            low, high = (bound.astype(np.float32) for bound in exact)
        wider = np.flatnonzero((least < low) | (most > high))
        if not len(wider):
            return ""
        number = int(wider[0])
        return (
            f"observations: {number_name(spec.parts, number)} goes from {least[number]:.6g} to "
            f"{most[number]:.6g}, its space from {exact[0][number]:.6g} to {exact[1][number]:.6g}"
        )

    def warn_of_numbers(self) -> None:
        """Warn if vectors lie beyond the bounds that the environment declares, or if images seem to
        hold codes instead of brightness.
        """
        warn_of_codes(self.episodes, self.spec(1))
        if self.outside:
            warnings.warn(
                f"{self.outside}; a model made for episodes.spec(window) imagines all that was "
                "recorded",
                stacklevel=3,
            )

    @property
    def steps(self) -> int:
        """Environment steps recorded in all."""
        return int(self.lengths.sum())

    def split(self, share: float) -> tuple[Episodes, Episodes]:
        """Two sets: all but the last episodes, and the last ``share`` of them, to validate on.

        Raises:
            ValueError: one of them would be empty.
        """
        held = round(share * len(self)) if 0 < share < 1 else 0
        if not 0 < held < len(self):
            raise ValueError(
                f"share: expected one that leaves episodes on both sides of {len(self)}, got "
                f"{share}"
            )
        spaces = self.action, self.observation_space, self.env_id
        return Episodes(self.episodes[:-held], *spaces), Episodes(self.episodes[-held:], *spaces)

    def hold_out(self, share: float) -> tuple[Episodes, Episodes]:
        """Two sets: those to train on, and about ``share`` of the episodes, evenly spaced.

        Recording more episodes leaves those that are held out where they are, so that a model which
        is trained further has not seen them. Of fewer than 1 / share episodes none can be held out:
        each is cut into 1 / share parts of consecutive steps, and parts are held out.

        Ends may be few. If one set had none, by the steps held out a model would seem the better
        the less it expects an end, or be judged by what it was never shown: then the last steps of
        all terminated episodes are in both sets.

        Raises:
            ValueError: ``share`` is not above 0 and at most a half, or there are not 1 / share
                steps.
        """
        if not 0 < share <= 0.5:
            raise ValueError(f"share: expected above 0 and at most 0.5, got {share}")
        parts = math.ceil(1 / share)
        every: Sequence[Episode] = self.episodes
        if len(every) < parts:
            if self.steps < parts:
                raise ValueError(
                    f"episodes: expected at least {parts} steps, to hold out {share} of them, got "
                    f"{self.steps}; record more"
                )
            every = [part for episode in every for part in _cut(episode, parts)]
        numbers: tuple[list[int], list[int]] = [], []
        for number in range(len(every)):
            numbers[int((number + 1) * share) > int(number * share)].append(number)
        sets: list[Sequence[Episode]]
        if isinstance(every, LazySequence):  # on the disk: so many that both sets have ends
            sets = [every.pick(chosen) for chosen in numbers]
        else:
            sets = [[every[number] for number in chosen] for chosen in numbers]
            sets = _with_ends(sets)
        training, held = (
            Episodes(chosen, self.action, self.observation_space, self.env_id) for chosen in sets
        )
        return training, held

    def starts(self) -> NDArray[Any]:
        """The first observations, (episodes, *observation), as episodes hold them."""
        first = self[0].observations[0]
        frames = np.empty((len(self), *first.shape), first.dtype)
        for number, episode in enumerate(self):
            frames[number] = episode.observations[0]  # one by one: no shard stays in memory
        return frames

    def save(self, folder: str | Path) -> Path:
        """Write ``meta.json`` and compressed ``.npz`` shards.

        Raises:
            FileExistsError: the folder holds episodes already; nothing is overwritten.
        """
        folder = Path(folder)
        with locked(folder):
            if (folder / "meta.json").exists():
                raise FileExistsError(f"folder: {folder} already holds episodes; choose a new one")
            shards: list[ShardEntry] = []
            for first in range(0, len(self), EPISODES_PER_SHARD):
                part = self.episodes[first : first + EPISODES_PER_SHARD]
                shards.append(write_shard(folder, len(shards), part))
            write_meta(folder, self.spec(1), shards, env=self.env_id)
        return folder

    @classmethod
    def load(cls, folder: str | Path, memory: int | None = None) -> Episodes:
        """Read what ``save`` wrote into ``folder``.

        Args:
            folder: of ``meta.json``.
            memory: None takes the episodes wholly into memory. Else the shards, which ``unpack``
                wrote, are checked once and then stay on disk: at most so many bytes of them
                are in memory at a time. Windows of them are the same ones. A file that another
                process cuts short meanwhile ends this one (SIGBUS, as for every mapped file).

        Raises:
            FileNotFoundError: there is no ``meta.json``, or a shard is missing.
            ValueError: another format version, a shard is corrupt or not what ``meta.json`` says,
                or this machine has less memory than all of them take; with ``memory``: a shard is
                compressed, or larger than that.
        """
        folder = Path(folder)
        meta = read_meta(folder)
        counts = shard_counts(folder, meta)
        episodes: Sequence[Episode]
        if memory is None:
            check_memory(folder, sum(map(unpacked_size, counts)))
            shards = [Shard.read(path, count) for path, count in counts.items()]
            episodes = [shard.episode(i) for shard in shards for i in range(len(shard.ends))]
        else:
            episodes = LazySequence(ShardCache(counts, memory, Shard.map), Shard.episode)
        shape = episodes[0].observations.shape[1:]
        try:
            if "parts" in meta:
                parts = meta["parts"] if isinstance(meta["parts"], list) else []
                action = ActionSpec.from_dict(meta.get("action", {}))
                spec = Spec.of_parts(tuple(map(Part.from_dict, parts)), action, window=1)
                return cls(episodes, action, spec.observation_space(), meta["env"])
            if len(shape) != 1:
                action = ActionSpec.from_dict(meta.get("action", {}))
                return cls(episodes, action, env_id=meta["env"])
            others = ("format", "shards", "collected", "env")
            known = {k: v for k, v in meta.items() if k not in others}
            spec = Spec.from_dict({"observation": shape, "window": 1, **known})
            return cls(episodes, spec.action, spec.observation_space(), meta["env"])
        except ValueError as error:
            raise ValueError(f"{folder}: meta.json does not fit its shards: {error}") from error

    def windows(
        self,
        window: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        whole: bool = False,
    ) -> WindowSource:
        """An endless source of training batches: windows that begin at any step, all steps alike.

        Args:
            window: steps of a window, at most the model's.
            batch_size: windows of a batch.
            seed: of the draws; the same seed and index are the same batch.
            device: where the batches are made, and so where ``fit`` trains.
            whole: to look at, not to train on: begin no window so near an episode's end that it
                is shorter than it need be. (Ends are then rarer than they are after all steps.)

        Raises:
            ValueError: a number is out of range.
        """
        source = WindowSource(
            self.episodes, self.lengths, self.action, window, batch_size, seed,
            torch.device(device), whole,
        )  # fmt: skip
        source.env_id = self.env_id
        return source


def _cut(episode: Episode, parts: int) -> list[Episode]:
    """An episode in so many parts of consecutive steps; fewer if it has fewer steps."""
    steps = len(episode.actions)
    parts = min(parts, steps)
    edges = [steps * part // parts for part in range(parts + 1)]
    return [_part(episode, begin, end) for begin, end in pairwise(edges)]


def _part(episode: Episode, begin: int, end: int) -> Episode:
    """The steps from ``begin`` to before ``end``."""
    return Episode(
        episode.observations[begin : end + 1],
        episode.actions[begin:end],
        episode.rewards[begin:end],
        episode.terminated and end == len(episode.actions),
        None if episode.masks is None else episode.masks[begin : end + 1],
    )


def _with_ends(sets: list[Sequence[Episode]]) -> list[Sequence[Episode]]:
    """Two sets, each with the last steps of the other one's terminated episodes if one has none."""
    ends = [
        [_part(e, len(e.actions) - 1, len(e.actions)) for e in chosen if e.terminated]
        for chosen in sets
    ]
    if all(ends) or not any(ends):
        return sets
    return [[*chosen, *others] for chosen, others in zip(sets, ends[::-1], strict=True)]


def _check_masks(episode: Episode, first: Episode, action: ActionSpec, owner: str) -> None:
    """Raise ValueError unless masks are of the actions, and there as in the first episode."""
    if (episode.masks is None) != (first.masks is None):
        has = ("no", "some") if episode.masks is None else ("some", "none")
        raise ValueError(
            f"{owner}: has {has[0]} action masks, the first episode {has[1]}; leave them away in "
            "all: dataclasses.replace(episode, masks=None)"
        )
    if episode.masks is not None and episode.masks.shape[1] != sum(action.choices):
        raise ValueError(
            f"{owner}: masks are of {episode.masks.shape[1]} choices, {action.to_space()} has "
            f"{sum(action.choices)}"
        )


def _vectors_of(observations: NDArray[Any], space: gym.Space[Any] | None) -> NDArray[Any]:
    """The numbers (T + 1, D) of recorded vectors, or of the vectors of packed Dicts."""
    if isinstance(space, gym.spaces.Dict):
        return vectors(parts_of(space), observations)
    return observations


def _space_of(observations: NDArray[Any]) -> gym.spaces.Box:
    """The space of images, or of vectors without bounds, (T + 1, *observation).

    Raises:
        ValueError: they are packed Dicts.
    """
    if observations.dtype == np.uint8 and observations.ndim == 2:
        raise ValueError("observation_space: give that of the Dicts that Spec.pack has packed")
    if observations.dtype == np.uint8:
        return gym.spaces.Box(0, 255, observations.shape[1:], np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)


def unpack(folder: str | Path, out: str | Path) -> Path:
    """Copy recorded episodes for ``Episodes.load(out, memory)``: uncompressed, shard by shard.

    Raises:
        FileExistsError: ``out`` holds episodes already; nothing is overwritten.
        FileNotFoundError: there is no ``meta.json`` in ``folder``, or a shard is missing.
        ValueError: another format version, or a shard is corrupt, or takes more than this machine's
            memory; of this nothing is written.
        BlockingIOError: another run is at work in ``out``.
    """
    folder, out = Path(folder), Path(out)
    meta = read_meta(folder)
    counts = shard_counts(folder, meta)
    for path in counts:  # one is in memory at a time
        check_memory(path, unpacked_size(path))
    with locked(out):
        if (out / "meta.json").exists():
            raise FileExistsError(f"out: {out} already holds episodes; choose a new one")
        for path, count in counts.items():
            arrays = step_by_step(Shard.read(path, count).arrays)
            with atomic(out / path.name) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)
        with atomic(out / "meta.json") as partial:
            partial.write_text(json.dumps(meta, indent=1) + "\n")
    return out
