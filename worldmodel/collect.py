"""Record episodes from any Gymnasium environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldmodel.data import (
    EPISODES_PER_SHARD,
    Episode,
    Episodes,
    Shard,
    read_meta,
    write_meta,
    write_shard,
)
from worldmodel.files import locked
from worldmodel.spec import Spec

Policy = Callable[[NDArray[Any]], Any]


def collect(
    env: gym.Env[Any, Any] | str,
    episodes: int | None = None,
    *,
    steps: int | None = None,
    policy: Policy | None = None,
    hold: int = 1,
    seed: int = 0,
    max_steps: int = 10_000,
    folder: str | Path | None = None,
    resume: bool = False,
    save_minutes: float = 5.0,
    progress: bool = True,
) -> Episodes:
    """Play episodes and keep them in memory, and in a folder if one is given.

    Args:
        env: a Gymnasium environment with uint8 (H, W, C) or float (D,) observations, or its id
            (``"module:namespace/Name-v0"`` imports the module first). An environment made here is
            closed here; one that was passed in is left open.
        episodes: how many, at least 1. Episode i is reset with ``seed + i``.
        steps: instead of ``episodes``: as many as it takes to have that many steps.
        policy: observation to action; None draws uniformly from the action space.
        hold: steps for which each action is repeated, as ``agents.HoldAction`` will.
        seed: of the environment and of the random policy.
        max_steps: an episode that has not ended by then is cut, as a truncation.
        folder: where shards are written as they fill, for ``Episodes.load``; a kill costs what came
            after the last one.
        resume: go on after the last shard in ``folder``. Random play then records the same as if it
            had never stopped; a policy's own state is not known here. ``episodes`` or ``steps``
            count those before, and may be more now.
        save_minutes: time after which a shard is written before it is full.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: a space is not supported, a number is below 1, not exactly one of ``episodes``
            and ``steps`` is given, or ``resume`` without a folder or of another recording.
        FileExistsError: ``folder`` holds episodes and ``resume`` is False.
        FileNotFoundError: ``resume``, but there are none.
        BlockingIOError: another run is at work in ``folder``.
        OSError: the disk is full, say; the shards before are kept.
    """
    wanted = episodes if episodes is not None else steps
    if wanted is None or (episodes is not None and steps is not None):
        raise ValueError(f"episodes, steps: give exactly one, got {episodes} and {steps}")
    if min(wanted, hold, max_steps) < 1:
        raise ValueError(
            f"{'steps' if episodes is None else 'episodes'}, hold, max_steps: expected at least 1, "
            f"got {wanted}, {hold}, {max_steps}"
        )
    if resume and folder is None:
        raise ValueError("resume: needs the folder of the recording to go on with")
    made = gym.make(env) if isinstance(env, str) else env
    facts = {
        "env": made.spec.id if made.spec is not None else type(made.unwrapped).__name__,
        "seed": seed, "hold": hold, "max_steps": max_steps, "random": policy is None,
    }  # fmt: skip
    try:
        spec = Spec.from_spaces(made.observation_space, made.action_space, window=1)
        made.action_space.seed(seed)
        with _Kept.opened(folder, resume, spec, facts, save_minutes) as kept:
            recorded = kept.recorded
            if policy is None:  # a resumed recording goes on with the actions that it would draw
                for _ in range(sum(-(-len(one.actions) // hold) for one in recorded)):
                    made.action_space.sample()
            done = len(recorded) if episodes is not None else sum(map(_steps, recorded))
            unit = "step" if episodes is None else "episode"
            shown = None if progress else True
            with tqdm(total=wanted, initial=done, desc="collect", unit=unit, disable=shown) as bar:
                while done < wanted:
                    one = _play(made, spec, policy, hold, seed + len(recorded), max_steps)
                    kept.add(one)
                    done += 1 if episodes is not None else _steps(one)
                    bar.update(done - bar.n)
            kept.write()
    finally:
        if isinstance(env, str):
            made.close()
    return Episodes(recorded, spec.action, spec.observation_space())


class _Kept:
    """What is recorded so far: in memory, and shard by shard in a folder."""

    def __init__(
        self, folder: Path | None, spec: Spec, facts: dict[str, Any], minutes: float
    ) -> None:
        self.folder, self.spec, self.facts, self.minutes = folder, spec, facts, minutes
        self.recorded: list[Episode] = []
        self.shards: list[Shard] = []
        self.written, self.since = 0, time.monotonic()

    @classmethod
    @contextmanager
    def opened(
        cls,
        folder: str | Path | None,
        resume: bool,
        spec: Spec,
        facts: dict[str, Any],
        minutes: float,
    ) -> Iterator[_Kept]:
        """With what the folder holds already; within it, no other run writes there."""
        kept = cls(None if folder is None else Path(folder), spec, facts, minutes)
        with nullcontext() if kept.folder is None else locked(kept.folder):
            if kept.folder is not None:
                kept._read(kept.folder, resume)
            yield kept

    def add(self, episode: Episode) -> None:
        """One more; writes a shard that is full, or due."""
        self.recorded.append(episode)
        full = len(self.recorded) - self.written >= EPISODES_PER_SHARD
        if full or time.monotonic() - self.since > self.minutes * 60:
            self.write()

    def write(self) -> None:
        """Write what no shard holds yet, and then ``meta.json``, which makes it count."""
        fresh = self.recorded[self.written :]
        if self.folder is None or not fresh:
            return
        self.shards.append(write_shard(self.folder, len(self.shards), fresh))
        write_meta(self.folder, self.spec, self.shards, collected=self.facts)
        self.written, self.since = len(self.recorded), time.monotonic()

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
        if meta.get("collected") != self.facts or before.spec(1) != self.spec:
            raise ValueError(
                f"resume: {folder} was recorded with {meta.get('collected')} of {before.spec(1)}, "
                f"now it is {self.facts} of {self.spec}"
            )
        self.recorded, self.shards = before.episodes, meta["shards"]
        self.written = len(self.recorded)


def _steps(episode: Episode) -> int:
    return len(episode.actions)


def _play(
    env: gym.Env[Any, Any],
    spec: Spec,
    policy: Policy | None,
    hold: int,
    seed: int,
    max_steps: int,
) -> Episode:
    _, dtype = spec.border
    observation, _ = env.reset(seed=seed)
    frames = [np.array(observation, dtype)]  # a copy: environments may reuse their buffer
    actions: list[NDArray[Any]] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated or len(actions) >= max_steps):
        if len(actions) % hold == 0:
            action = env.action_space.sample() if policy is None else policy(frames[-1])
        observation, reward, terminated, truncated, _ = env.step(action)
        frames.append(np.array(observation, dtype))
        actions.append(np.array(action))
        rewards.append(float(reward))
    return Episode(
        np.stack(frames), np.stack(actions), np.array(rewards, np.float32), bool(terminated)
    )
