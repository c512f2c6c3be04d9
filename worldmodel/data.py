"""Recorded episodes: in memory, and on disk."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.spec import ActionSpec, Spec
from worldmodel.stored import Arrays, Mapped, Stored, compressed, map_arrays
from worldmodel.windows import WindowSource

FORMAT = 1
EPISODES_PER_SHARD = 256


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps.

    Attributes:
        observations: uint8 (T + 1, H, W, C), or float32 (T + 1, D).
        actions: (T, \\*action).
        rewards: float32 (T,).
        terminated: whether the last step ended it (False: it was truncated).
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: bool

    def __post_init__(self) -> None:
        frames, steps = self.observations, len(self.actions)
        if (str(frames.dtype), frames.ndim) not in (("uint8", 4), ("float32", 2)):
            raise ValueError(
                "observations: expected uint8 (T + 1, H, W, C) or float32 (T + 1, D), got "
                f"{frames.dtype} {frames.shape}"
            )
        if steps < 1 or len(frames) != steps + 1 or self.rewards.shape != (steps,):
            raise ValueError(
                f"episode: {steps} actions need {steps + 1} observations and {steps} rewards (at "
                f"least 1 step), got {len(frames)} and {self.rewards.shape}"
            )
        for name in ("observations", "rewards", "actions"):
            values = getattr(self, name)
            with np.errstate(over="ignore"):  # all is computed in float32
                narrow = values.astype(np.float32, copy=False)
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(narrow).all():
                raise ValueError(f"{name}: hold NaN or infinity, or more than float32 can")


class Episodes:
    """A set of episodes of one environment.

    Args:
        episodes: at least one; observation and action shapes agree.
        action: what their actions are.
        observation_space: the environment's; None for images, or vectors without bounds.

    Raises:
        ValueError: there is none, shapes differ, or an action is none of the space.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        action: ActionSpec,
        observation_space: gym.Space[Any] | None = None,
    ) -> None:
        if not episodes:
            raise ValueError("episodes: empty; record at least one")
        first = episodes[0]
        for number, episode in enumerate(episodes):
            if episode.observations.shape[1:] != first.observations.shape[1:]:
                raise ValueError(
                    f"episodes[{number}]: observations are {episode.observations.shape[1:]}, those "
                    f"of the first episode {first.observations.shape[1:]}"
                )
            action.check(episode.actions, f"episodes[{number}]")
        self.episodes = episodes if isinstance(episodes, Stored) else list(episodes)
        self.action = action
        self.observation_space = observation_space or _space_of(first.observations)
        _, dtype = self.spec(1).border
        space = self.observation_space
        if space.shape != first.observations.shape[1:] or dtype != first.observations.dtype:
            raise ValueError(
                f"observation_space: {space} does not fit observations of "
                f"{first.observations.dtype} {first.observations.shape[1:]}"
            )

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
        return Episodes([*self, *other], self.action, self.observation_space)

    def spec(self, window: int) -> Spec:
        """What a model of these episodes is made for: it looks across ``window`` steps."""
        return Spec.from_spaces(self.observation_space, self.action.to_space(), window)

    @property
    def steps(self) -> int:
        """Environment steps recorded in all."""
        return sum(len(episode.actions) for episode in self.episodes)

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
        first, last = self.episodes[:-held], self.episodes[-held:]
        return (
            Episodes(first, self.action, self.observation_space),
            Episodes(last, self.action, self.observation_space),
        )

    def starts(self) -> NDArray[Any]:
        """The first observations, (episodes, *observation)."""
        first = self[0].observations[0]
        frames = np.empty((len(self), *first.shape), first.dtype)
        for number, episode in enumerate(self):
            frames[number] = episode.observations[0]  # one by one: no shard is kept
        return frames

    def save(self, folder: str | Path) -> Path:
        """Write ``meta.json`` and compressed ``.npz`` shards.

        Raises:
            FileExistsError: the folder holds episodes already; nothing is overwritten.
        """
        folder = Path(folder)
        if (folder / "meta.json").exists():
            raise FileExistsError(f"folder: {folder} already holds episodes; choose a new one")
        folder.mkdir(parents=True, exist_ok=True)
        shards = []
        for first in range(0, len(self), EPISODES_PER_SHARD):
            part = self.episodes[first : first + EPISODES_PER_SHARD]
            name = f"episodes-{first // EPISODES_PER_SHARD:05d}.npz"
            with atomic(folder / name) as path, path.open("wb") as file:
                np.savez_compressed(
                    file,
                    observations=np.concatenate([e.observations for e in part]),
                    actions=np.concatenate([e.actions for e in part]),
                    rewards=np.concatenate([e.rewards for e in part]),
                    terminated=np.array([e.terminated for e in part]),
                    steps=np.array([len(e.actions) for e in part]),
                )
            shards.append({"file": name, "episodes": len(part)})
        spec = self.spec(1).to_dict()
        bounds = {name: spec[name] for name in ("low", "high", "dtype")}
        meta = {"format": FORMAT, "action": spec["action"], **bounds, "shards": shards}
        with atomic(folder / "meta.json") as path:
            path.write_text(json.dumps(meta, indent=1) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path, memory: int | None = None) -> Episodes:
        """Read what ``save`` wrote into ``folder``.

        Args:
            folder: of ``meta.json``.
            memory: None takes the episodes wholly into memory. Else the shards, which ``unpack``
                wrote, are looked through once and then stay on disk: at most so many bytes of them
                are in memory at a time. Windows of them are the same ones.

        Raises:
            FileNotFoundError: there is no ``meta.json``, or a shard is missing.
            ValueError: another format version, or a shard is corrupt; with ``memory``: a shard is
                compressed, or larger than that.
        """
        folder = Path(folder)
        meta = _read_meta(folder)
        counts = {folder / shard["file"]: int(shard["episodes"]) for shard in meta["shards"]}
        episodes: Sequence[Episode]
        if memory is None:
            shards = [_Shard.read(path, count) for path, count in counts.items()]
            episodes = [shard.episode(i) for shard in shards for i in range(len(shard.ends))]
        else:
            episodes = Stored(Mapped(counts, memory, _Shard.map), _Shard.episode)
        shape = episodes[0].observations.shape[1:]
        if len(shape) != 1:
            return cls(episodes, ActionSpec.from_dict(meta["action"]))
        spec = Spec.from_dict({**meta, "observation": shape, "window": 1})
        return cls(episodes, spec.action, spec.observation_space())

    def windows(
        self,
        window: int,
        batch_size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
        anywhere: float = 0.5,
    ) -> WindowSource:
        """An endless source of training batches.

        Args:
            window: steps of a window, at most the model's.
            batch_size: windows of a batch.
            seed: of the draws; the same seed and index are the same batch.
            device: where the batches are made, and so where ``fit`` trains.
            anywhere: share of the windows that begin at any step of an episode, also near its end;
                the others show as many steps as there are.

        Raises:
            ValueError: a number is out of range.
        """
        return WindowSource(self, window, batch_size, seed, torch.device(device), anywhere)


def _space_of(observations: NDArray[Any]) -> gym.spaces.Box:
    """The space of images, or of vectors without bounds, (T + 1, *observation)."""
    if observations.dtype == np.uint8:
        return gym.spaces.Box(0, 255, observations.shape[1:], np.uint8)
    return gym.spaces.Box(-np.inf, np.inf, observations.shape[1:], np.float32)


def unpack(folder: str | Path, out: str | Path) -> Path:
    """Copy recorded episodes for ``Episodes.load(out, memory)``: uncompressed, shard by shard.

    Raises:
        FileExistsError: ``out`` holds episodes already; nothing is overwritten.
        FileNotFoundError: there is no ``meta.json`` in ``folder``, or a shard is missing.
        ValueError: another format version, or a shard is corrupt.
    """
    folder, out = Path(folder), Path(out)
    meta = _read_meta(folder)
    if (out / "meta.json").exists():
        raise FileExistsError(f"out: {out} already holds episodes; choose a new one")
    out.mkdir(parents=True, exist_ok=True)
    for entry in meta["shards"]:
        arrays: dict[str, Any] = _Shard.read(folder / entry["file"], entry["episodes"]).arrays
        with atomic(out / entry["file"]) as path, path.open("wb") as file:
            np.savez(file, **arrays)
    with atomic(out / "meta.json") as path:
        path.write_text(json.dumps(meta, indent=1) + "\n")
    return out


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    if not path.is_file():
        raise FileNotFoundError(f"folder: {folder} holds no meta.json; Episodes.save makes one")
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if meta.get("format") != FORMAT:
        raise ValueError(f"{path}: format {meta.get('format')!r}, this version reads {FORMAT}")
    return meta


@dataclass(frozen=True)
class _Shard:
    """Arrays of a file at ``path``, and where its episodes' steps end."""

    path: Path
    arrays: Arrays
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, path: Path, arrays: Arrays, count: int) -> _Shard:
        """Checked: the arrays hold ``count`` episodes."""
        ends = arrays["steps"].cumsum()
        steps, episodes = int(ends[-1]), len(ends)
        lengths = [len(arrays[name]) for name in ("actions", "rewards", "observations")]
        if lengths != [steps, steps, steps + episodes] or len(arrays["terminated"]) != episodes:
            raise ValueError(f"its arrays do not hold {episodes} episodes of {steps} steps in all")
        if episodes != count:
            raise ValueError(f"{episodes} episodes, meta.json says {count}")
        return cls(path, arrays, ends)

    @classmethod
    def read(cls, path: Path, count: int) -> _Shard:
        """Wholly into memory."""
        _check_there(path)
        with _whole(path), np.load(path, allow_pickle=False) as data:
            return cls.of(path, {name: data[name] for name in data.files}, count)

    @classmethod
    def map(cls, path: Path, count: int) -> _Shard:
        """As pages of the file."""
        _check_there(path)
        with _whole(path):
            packed = compressed(path)
        if packed:
            raise ValueError(
                f"{path}: it is compressed, and cannot be read in part; `python -m worldmodel "
                f"unpack {path.parent} --out OUT` copies the episodes so that they can"
            )
        with _whole(path):
            return cls.of(path, map_arrays(path), count)

    def episode(self, number: int) -> Episode:
        """Views of the arrays."""
        end = self.ends[number]
        begin = end - self.arrays["steps"][number]
        with _whole(self.path):
            return Episode(
                self.arrays["observations"][begin + number : end + number + 1],
                self.arrays["actions"][begin:end],
                self.arrays["rewards"][begin:end],
                bool(self.arrays["terminated"][number]),
            )


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the shard is missing")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What goes wrong within says that the shard is corrupt."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        LookupError,
        ValueError,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:
        raise ValueError(f"{path}: corrupt shard ({error}); record it again") from error


class atomic:
    """Context manager: write to a neighbour file, move it into place when all went well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            os.replace(self.partial, self.path)
        else:
            self.partial.unlink(missing_ok=True)
