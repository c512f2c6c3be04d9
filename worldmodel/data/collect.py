"""Record episodes from any Gymnasium environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.common.cluster import scatter
from worldmodel.common.config_checks import difference
from worldmodel.common.files import locked
from worldmodel.common.progress import progress_bar
from worldmodel.data.env_checks import env_name, mask_function
from worldmodel.data.episode import Episode
from worldmodel.data.episodes import Episodes
from worldmodel.data.make_env import Env, EnvLike, make_env, open_env
from worldmodel.data.recorder import EpisodeRecorder, Policy
from worldmodel.data.shards import (
    EPISODES_PER_SHARD,
    ShardEntry,
    read_meta,
    write_meta,
    write_shard,
)
from worldmodel.data.vector import Vector, VectorPlayer, as_vector, is_vector
from worldmodel.spec import Spec

SIDE_BY_SIDE = (
    "workers: a vector environment plays side by side by itself; give workers=0, or the id of one "
    "environment"
)
BLOCKS_PER_WORKER = 8
"""Few, so that environments are seldom made; enough that no worker waits long for the last."""


def collect(
    env: EnvLike | Any,
    episodes: int | None = None,
    *,
    steps: int | None = None,
    policy: Policy | None = None,
    hold: int = 1,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    max_steps: int = 10_000,
    folder: str | Path | None = None,
    resume: bool = False,
    save_minutes: float = 5.0,
    progress: bool = True,
    workers: int = 0,
    address: str | None = None,
) -> Episodes:
    """Record episodes in memory, and in a folder if one is given.

    An environment's ``action_masks()``, by sb3-contrib's convention, are recorded as
    ``Episode.masks``; random play chooses legal actions only. A vector environment that begins new
    episodes within a step (SB3's, Gymnasium's ``SAME_STEP``) shows no masks of an episode's last
    observation: they are recorded as False, nothing is legal.

    Episode i is a function of ``seed + i``, however many workers play: it is what
    ``collect(env, 1, seed=seed + i)`` records (for a policy without randomness).

    Args:
        env: an environment with uint8 (H, W, C) or float (D,) observations or Dicts of such, a
            function that makes one, or its id; see ``EnvLike``. Or a vector environment of
            Gymnasium or of Stable-Baselines3, or a function that makes it: the episodes are the
            same, as far as its reset seeds the i-th environment with seed + i. Where episodes
            differ in length, take Gymnasium's ``AutoresetMode.DISABLED``, or SB3's without
            wrappers: each environment then begins its next episode at once. What was passed in is
            left open.
        episodes: how many, at least 1. Episode i is reset with ``seed + i``.
        steps: instead of ``episodes``: as many as it takes to have that many steps.
        policy: observation to action; None samples uniformly from the action space.
        hold: steps for which each action is held, as by ``agents.HoldAction``.
        options: of every reset.
        seed: of the environment and of the random policy.
        max_steps: an episode that has not ended by then is truncated.
        folder: where shards are written as they fill, for ``Episodes.load``; a kill costs what came
            after the last one, Ctrl-C only the episode that is under way.
        resume: go on after the last shard in ``folder``. Random play then records the same as if it
            had never stopped; a policy's own state is not restored. ``episodes`` or ``steps``
            include those before, and may be more now.
        save_minutes: time after which a shard is written before it is full.
        progress: show a progress bar on a terminal, else a line every 30 s.
        workers: processes that play, with ``episodes`` and an id or a function; 0 plays in this
            one. See ``worldmodel.common.cluster.scatter``, also for more errors.
        address: of a Ray cluster, for workers on other machines.

    Raises:
        ValueError: a space is not supported, a number is out of range, not exactly one of
            ``episodes`` and ``steps`` is given, workers shall record a number of ``steps``, or
            ``resume`` without a folder or of another recording; or the environment returns an
            observation outside its space, or a reward that is no number.
        TypeError: workers would have to share an environment.
        FileExistsError: ``folder`` holds episodes and ``resume`` is False.
        FileNotFoundError: ``resume``, but there are none.
        BlockingIOError: another run is at work in ``folder``.
        OSError: the disk is full, say; earlier shards stay.
        KeyboardInterrupt: Ctrl-C, or a command's SIGTERM; ``folder`` holds the finished episodes.
    """
    total = episodes if episodes is not None else steps
    if total is None or (episodes is not None and steps is not None):
        raise ValueError(f"episodes, steps: give exactly one, got {episodes} and {steps}")
    if min(total, hold, max_steps) < 1:
        raise ValueError(
            f"{'steps' if episodes is None else 'episodes'}, hold, max_steps: expected at least 1, "
            f"got {total}, {hold}, {max_steps}"
        )
    if not (options is None or isinstance(options, dict)):
        raise TypeError(f"options: expected a dict of the environment's, got {options!r}")
    if resume and folder is None:
        raise ValueError("resume: needs the folder of the recording to go on with")
    if workers and episodes is None:
        raise ValueError(
            "workers: need a number of episodes, got steps: which episode is the last "
            "depends on all before it"
        )
    if workers and isinstance(env, gym.Env):
        raise TypeError("env: workers make their own; pass its id, or a function that makes it")
    if workers and is_vector(env):
        raise TypeError(SIDE_BY_SIDE)
    player = _Player(env, policy, hold, max_steps, options)
    with _open(env) as made:
        name = made.name if isinstance(made, Vector) else env_name(made)
        facts: dict[str, Any] = {
            "env": name, "seed": seed, "hold": hold, "max_steps": max_steps,
            "random": policy is None,
        }  # fmt: skip
        if options is not None:
            facts["options"] = repr(options)
        spec = _spec_of(made)
        if isinstance(made, Vector):
            masked = made.has_masks and bool(spec.action.choices)
        else:
            masked = mask_function(made, spec.action) is not None
        if masked:
            facts["masks"] = True
        folder = None if folder is None else Path(folder)
        with nullcontext() if folder is None else locked(folder):
            recording = _Recording(folder, resume, spec, facts, save_minutes)
            first = seed + len(recording.episodes)
            parts: Iterator[list[Episode]]
            if isinstance(made, Vector):
                if workers:
                    raise TypeError(SIDE_BY_SIDE)
                begin = partial(player.begin, name, spec)
                last = None if episodes is None else seed + episodes
                parts = VectorPlayer(made, begin, options, masked).play(first, last)
            elif workers:
                blocks = _blocks(range(first, seed + total), workers)
                parts = scatter(player.block, blocks, workers, address)
            else:
                parts = ([player.play(made, spec, one)] for one in count(first))
            recording.fill(parts, total, "step" if episodes is None else "episode", progress)
    recorded = Episodes(recording.episodes, spec.action, spec.observation_space(), name)
    recorded.warn_of_numbers()
    return recorded


@contextmanager
def _open(env: EnvLike | Any) -> Iterator[Env | Vector]:
    """The environment, or vector environment, that ``env`` names, closed if it was made here."""
    made = env if isinstance(env, str | gym.Env) or not callable(env) else env()
    vector = as_vector(made) if is_vector(made) else None
    opened = vector or make_env(made if isinstance(made, str) else lambda: made)
    try:
        yield opened
    finally:
        inner: Any = opened if vector is None else vector.venv
        if inner is not env:
            inner.close()


def _spec_of(env: Env | Vector) -> Spec:
    try:
        return Spec.from_spaces(env.observation_space, env.action_space, window=1)
    except ValueError as error:
        if not isinstance(env, Vector):
            raise
        raise ValueError(f"{error}; do so with each environment, before they become one") from error


class _Recording:
    """The episodes so far: in memory, and shard by shard in a folder, which is locked."""

    def __init__(
        self, folder: Path | None, resume: bool, spec: Spec, facts: dict[str, Any], minutes: float
    ) -> None:
        self.folder, self.spec, self.facts, self.minutes = folder, spec, facts, minutes
        self.episodes: list[Episode] = []
        # Shards, and how many episodes they hold: one value, so that Ctrl-C cannot split it.
        self.on_disk: tuple[list[ShardEntry], int] = [], 0
        self.last_write = time.monotonic()
        if folder is not None:
            self._read(folder, resume)

    def fill(self, parts: Iterator[list[Episode]], total: int, unit: str, progress: bool) -> None:
        """Add the parts' episodes until there are so many episodes or steps, and write them. After
        Ctrl-C, what was added is written, too.
        """
        try:
            done = _count(self.episodes, unit)
            with progress_bar("collect", unit, total, initial=done, show=progress) as bar:
                while done < total:
                    part = next(parts)
                    for one in part:
                        self.add(one)
                    done += _count(part, unit)
                    bar.update(done - bar.n)
            self.write()
        except KeyboardInterrupt as error:
            if self.folder is None or not self.episodes:
                raise
            self.write()
            raise KeyboardInterrupt(
                f"stopped after {len(self.episodes)} episodes; resume=True (--resume) goes on from "
                "there"
            ) from error

    def add(self, episode: Episode) -> None:
        """Add an episode, whose spaces must be those of the recording: another one would make the
        whole folder unreadable. Writes a shard that is full, or due.
        """
        seed = self.facts["seed"] + len(self.episodes)
        owner = f"env: {self.facts['env']}, episode of seed {seed}"
        shape, _ = self.spec.border
        if episode.observations.shape[1:] != shape:
            raise ValueError(
                f"{owner}: observations are {episode.observations.shape[1:]}, at the beginning the "
                f"space was {self.spec.observation_space()}"
            )
        self.spec.action.check(episode.actions, owner)
        self.episodes.append(episode)
        full = len(self.episodes) - self.on_disk[1] >= EPISODES_PER_SHARD
        if full or time.monotonic() - self.last_write > self.minutes * 60:
            self.write()

    def write(self) -> None:
        """Write the episodes that no shard holds yet, then ``meta.json``, which names the shard."""
        shards, written = self.on_disk
        fresh = self.episodes[written:]
        if self.folder is None or not fresh:
            return
        shards = [*shards, write_shard(self.folder, len(shards), fresh)]
        write_meta(self.folder, self.spec, shards, env=self.facts["env"], collected=self.facts)
        self.on_disk = shards, written + len(fresh)  # Ctrl-C before this: they are written again
        self.last_write = time.monotonic()

    def _read(self, folder: Path, resume: bool) -> None:
        there = (folder / "meta.json").exists()
        if there and not resume:
            raise FileExistsError(
                f"folder: {folder} already holds episodes; pass resume=True (--resume) to go on, "
                "or another folder (--out)"
            )
        if not resume:
            return
        if not there:
            raise FileNotFoundError(
                f"resume: {folder} holds no episodes yet; begin without resume (--resume)"
            )
        meta, before = read_meta(folder), Episodes.load(folder)
        recorded = Spec.from_spaces(before.observation_space, before.action.to_space(), window=1)
        if meta.get("collected") != self.facts or recorded != self.spec:
            then = {**meta.get("collected", {}), "spec": recorded.to_dict()}
            now = {**self.facts, "spec": self.spec.to_dict()}
            raise ValueError(
                f"resume: {folder} was recorded with {difference(then, now)}; give the same, or "
                "another folder"
            )
        self.episodes, self.on_disk = list(before), (meta["shards"], len(before))


def _count(episodes: list[Episode], unit: str) -> int:
    return len(episodes) if unit == "episode" else sum(len(one.actions) for one in episodes)


def _blocks(seeds: range, workers: int) -> list[range]:
    size = max(1, -(-len(seeds) // (BLOCKS_PER_WORKER * workers)))
    return [seeds[i : i + size] for i in range(0, len(seeds), size)]


@dataclass(frozen=True)
class _Player:
    """Plays the episodes of given seeds; workers have a copy."""

    env: EnvLike
    policy: Policy | None
    hold: int
    max_steps: int
    options: dict[str, Any] | None

    def block(self, seeds: Iterable[int]) -> list[Episode]:
        """In an environment of its own."""
        with open_env(self.env) as made:
            spec = Spec.from_spaces(made.observation_space, made.action_space, window=1)
            return [self.play(made, spec, seed) for seed in seeds]

    def play(self, env: Env, spec: Spec, seed: int) -> Episode:
        """The episode of one seed."""
        observation, _ = env.reset(seed=seed, options=deepcopy(self.options))
        masks = mask_function(env, spec.action)
        recorder = self.begin(env_name(env), spec, seed, env.action_space, observation, masks)
        while not recorder.over:
            observation, reward, terminated, truncated, _ = env.step(recorder.action())
            recorder.add(observation, reward, bool(terminated), bool(truncated))
        return recorder.episode()

    def begin(
        self,
        name: str,
        spec: Spec,
        seed: int,
        action_space: gym.Space[Any],
        observation: Any,
        masks: Callable[[], Any] | None = None,
    ) -> EpisodeRecorder:
        """Seed the actions of an episode, and record its first observation."""
        # Another stream than the environment's own, which is seeded with the same number.
        action_space.seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        owner = f"env: {name}, episode of seed {seed}"
        return EpisodeRecorder(
            owner,
            spec,
            observation,
            action_space,
            self.policy,
            self.hold,
            self.max_steps,
            masks,
        )
