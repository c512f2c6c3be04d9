"""Gymnasium's and Stable-Baselines3's vector environments, played side by side, seed by seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from worldmodel.data.env_checks import checked_masks, sample_legal, some_legal
from worldmodel.data.episode import Episode
from worldmodel.data.recorder import EpisodeRecorder
from worldmodel.spec import ActionSpec

Flags = NDArray[np.bool_]
Options = dict[str, Any] | None


class Steps(NamedTuple):
    """One step of each environment; where an episode ended, the observation is its last one."""

    observations: Sequence[Any]
    rewards: NDArray[Any]
    terminated: Flags
    truncated: Flags


class Vector(ABC):
    """What recording needs of a vector environment, whichever library it is of.

    Attributes:
        venv: the vector environment.
        observation_space, action_space: of one environment.
        name: its id, or else its class.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    name: str

    def __init__(self, venv: Any) -> None:
        self.venv = venv
        self.num_envs = int(venv.num_envs)

    @property
    @abstractmethod
    def has_masks(self) -> bool:
        """Whether an environment has ``action_masks``."""

    @abstractmethod
    def masks(self) -> Sequence[Any]:
        """The ``action_masks()`` of each environment, as it is now."""

    @property
    @abstractmethod
    def resets_at_once(self) -> bool:
        """Whether an environment whose episode ended has begun the next one when ``step`` returns,
        so that the masks of its last observation are gone.
        """

    @abstractmethod
    def reset(self, seed: int, options: Options) -> Sequence[Any]:
        """Begin an episode in every environment, in the i-th with ``seed + i``."""

    @abstractmethod
    def step(self, actions: NDArray[Any]) -> Steps:
        """Take one step in every environment."""

    def restart(self, rows: NDArray[np.int64], seeds: list[int], options: Options) -> Any:
        """Begin episodes in some environments with ``seeds``, and return the observations of all.

        None where the environments begin new episodes by themselves, with seeds of their own.
        """
        return None


class GymnasiumVector(Vector):
    """A ``gymnasium.vector.VectorEnv``, in any autoreset mode."""

    def __init__(self, venv: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(venv)
        self.observation_space = venv.single_observation_space
        self.action_space = venv.single_action_space
        self.name = type(venv.unwrapped).__name__ if venv.spec is None else venv.spec.id
        mode = (venv.metadata or {}).get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.mode = AutoresetMode(mode)
        self.seeds_one = isinstance(venv.unwrapped, SyncVectorEnv | AsyncVectorEnv)

    @property
    def has_masks(self) -> bool:
        """See ``Vector``."""
        if self.seeds_one:
            some = self.venv.call("has_wrapper_attr", "action_masks")
            if any(some) and not all(some):
                raise ValueError(
                    f"env: {sum(some)} of the {len(some)} environments of {self.name} have "
                    "action_masks; record those that have some alone"
                )
            return all(some)
        return hasattr(self.venv.unwrapped, "action_masks")

    def masks(self) -> Sequence[Any]:
        """See ``Vector``; environments that are computed together return (num_envs, n)."""
        if self.seeds_one:
            return list(self.venv.call("action_masks"))
        masks: Any = self.venv.unwrapped
        return list(masks.action_masks())

    @property
    def resets_at_once(self) -> bool:
        """See ``Vector``."""
        return self.mode is AutoresetMode.SAME_STEP

    def reset(self, seed: int, options: Options) -> Sequence[Any]:
        """See ``Vector``."""
        return _rows(self.venv.reset(seed=seed, options=_copy(options))[0], self.num_envs)

    def step(self, actions: NDArray[Any]) -> Steps:
        """See ``Vector``."""
        observations, rewards, terminated, truncated, infos = self.venv.step(actions)
        observations = _rows(observations, self.num_envs)
        if self.mode is AutoresetMode.SAME_STEP:
            for row in np.flatnonzero(terminated | truncated):
                observations[row] = infos["final_obs"][row]
        return Steps(observations, rewards, terminated, truncated)

    def restart(self, rows: NDArray[np.int64], seeds: list[int], options: Options) -> Any:
        """See ``Vector``; environments that reset all with one generator get no seeds."""
        if self.mode is not AutoresetMode.DISABLED:
            return None
        mask = np.zeros(self.num_envs, np.bool_)
        mask[rows] = True
        each: list[int | None] = [None] * self.num_envs
        for row, seed in zip(rows, seeds, strict=True):
            each[row] = seed
        options = {**(options or {}), "reset_mask": mask}
        fresh = self.venv.reset(seed=each if self.seeds_one else None, options=options)[0]
        return _rows(fresh, self.num_envs) if self.seeds_one else None


class StableBaselinesVector(Vector):
    """A ``VecEnv`` of Stable-Baselines3, which is not imported.

    Raises:
        ValueError: a wrapper changes what it shows while it is recorded.
    """

    def __init__(self, venv: Any) -> None:
        super().__init__(venv)
        self.observation_space, self.action_space = venv.observation_space, venv.action_space
        self._wrapped = hasattr(venv, "venv")
        inner = venv
        while inner is not None:  # VecNormalize has this method
            if hasattr(type(inner), "get_original_reward") and inner.training:
                raise ValueError(
                    f"env: {type(inner).__name__} scales each step otherwise than "
                    "those before; record its venv, or set its training to False"
                )
            inner = getattr(inner, "venv", None)
        self.name = type(venv.unwrapped).__name__
        try:
            spec = venv.get_attr("spec")[0]
        except AttributeError:
            return
        self.name = self.name if spec is None else spec.id

    @property
    def has_masks(self) -> bool:
        """See ``Vector``."""
        return bool(self.venv.has_attr("action_masks"))

    def masks(self) -> Sequence[Any]:
        """See ``Vector``."""
        return list(self.venv.env_method("action_masks"))

    resets_at_once = True

    def reset(self, seed: int, options: Options) -> Sequence[Any]:
        """See ``Vector``."""
        self.venv.seed(seed)
        if options is not None:
            self.venv.set_options(_copy(options))
        return _rows(self.venv.reset(), self.num_envs)

    def restart(self, rows: NDArray[np.int64], seeds: list[int], options: Options) -> Any:
        """See ``Vector``; through wrappers such as ``VecFrameStack`` no single one can be reset."""
        if not (hasattr(self.venv, "envs") or hasattr(self.venv, "remotes")) or self._wrapped:
            return None
        fresh: list[Any] = [None] * self.num_envs
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            settings = {"seed": seed, "options": _copy(options), "indices": [row]}
            fresh[row] = self.venv.env_method("reset", **settings)[0][0]
        return fresh

    def step(self, actions: NDArray[Any]) -> Steps:
        """See ``Vector``."""
        observations, rewards, dones, infos = self.venv.step(actions)
        observations = _rows(observations, self.num_envs)
        cut = np.array([info.get("TimeLimit.truncated", False) for info in infos], np.bool_)
        for row in np.flatnonzero(dones):
            observations[row] = infos[row]["terminal_observation"]
        return Steps(observations, rewards, dones & ~cut, dones & cut)


def _rows(observations: Any, num_envs: int) -> list[Any]:
    """The observation of each environment: a dict where those of all are a dict of arrays."""
    if isinstance(observations, Mapping):
        return [{name: part[row] for name, part in observations.items()} for row in range(num_envs)]
    return list(observations)


def _copy(options: Options) -> Options:
    return None if options is None else dict(options)


def is_vector(env: Any) -> bool:
    """Whether it is a vector environment, of Gymnasium or of Stable-Baselines3."""
    return isinstance(env, VectorEnv) or (hasattr(env, "num_envs") and hasattr(env, "step_async"))


def as_vector(env: Any) -> Vector:
    """A vector environment as recording needs it."""
    return GymnasiumVector(env) if isinstance(env, VectorEnv) else StableBaselinesVector(env)


@dataclass(frozen=True)
class VectorPlayer:
    """Plays the episodes of consecutive seeds, as many at a time as there are environments.

    Attributes:
        vector: the environments.
        begin: an ``EpisodeRecorder`` for a seed, an action space, a first observation and, maybe,
            ``action_masks``.
        options: of every reset.
        masked: whether action masks are recorded.
    """

    vector: Vector
    begin: Callable[[int, gym.Space[Any], Any, Callable[[], Any] | None], EpisodeRecorder]
    options: Options
    masked: bool = False

    def play(self, first: int, last: int | None) -> Iterator[list[Episode]]:
        """The episodes of the seeds from ``first`` on, in order, up to ``last``; None: no end.

        An environment begins its next episode at once where it takes a seed for that; else all are
        reset together, when the longest episode is over.
        """
        following, finished = first, dict[int, Episode]()
        while last is None or first < last:
            for seed, episode in self._round(following, last):
                finished[seed] = episode
                following = max(following, seed + 1)
                while first in finished:
                    yield [finished.pop(first)]
                    first += 1

    def _round(self, seed: int, last: int | None) -> Iterator[tuple[int, Episode]]:
        """Play from one reset of all environments until none plays an episode any more."""
        num = self.vector.num_envs
        spaces = [deepcopy(self.vector.action_space) for _ in range(num)]
        playing: dict[int, tuple[int, EpisodeRecorder]] = {}
        legal: list[Any] = []

        def begin(rows: Sequence[int], seeds: Sequence[int], observations: Sequence[Any]) -> None:
            if self.masked:
                legal[:] = self.vector.masks()
            for row, one in zip(rows, seeds, strict=True):
                if last is None or one < last:
                    masks = partial(legal.__getitem__, row) if self.masked else None
                    playing[row] = one, self.begin(one, spaces[row], observations[row], masks)

        begin(range(num), range(seed, seed + num), self.vector.reset(seed, self.options))
        following = seed + num
        while playing:
            actions = [
                playing[row][1].action() if row in playing else self._idle(spaces[row], legal, row)
                for row in range(num)
            ]
            steps = self.vector.step(np.stack([np.asarray(action) for action in actions]))
            over = steps.terminated | steps.truncated
            if self.masked:
                legal[:] = self.vector.masks()
                if self.vector.resets_at_once:
                    legal[:] = [
                        np.zeros_like(mask) if gone else mask
                        for mask, gone in zip(legal, over, strict=True)
                    ]
            for row in list(playing):
                one, recorder = playing[row]
                recorder.add(
                    steps.observations[row],
                    steps.rewards[row],
                    bool(steps.terminated[row]),
                    bool(steps.truncated[row]),
                )
                if recorder.over:
                    over[row] = True
                    del playing[row]
                    yield one, recorder.episode()
            rows = np.flatnonzero(over)
            if len(rows) and (playing or last is None or following < last):
                seeds = list(range(following, following + len(rows)))
                fresh = self.vector.restart(rows, seeds, self.options)
                if fresh is not None:
                    begin(rows.tolist(), seeds, fresh)
                    following += len(rows)

    def _idle(self, space: gym.Space[Any], legal: Sequence[Any], row: int) -> Any:
        """An action for an environment whose steps are not recorded; a legal one, if there is."""
        if not self.masked:
            return space.sample()
        action, owner = ActionSpec.from_space(space), f"env: {self.vector.name}, environment {row}"
        mask = checked_masks(legal[row], action, owner)
        return sample_legal(space, mask, owner) if some_legal(mask, action) else space.sample()
