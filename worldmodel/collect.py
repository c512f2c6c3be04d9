"""Record episodes from any Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldmodel.cluster import scatter
from worldmodel.data import Episode, Episodes
from worldmodel.spec import Spec

Env = gym.Env[Any, Any]
Policy = Callable[[NDArray[Any]], Any]
BLOCKS_PER_WORKER = 8
"""Few enough that environments are seldom made, enough that no worker waits long for the last."""


def collect(
    env: Env | Callable[[], Env] | str,
    episodes: int | None = None,
    *,
    steps: int | None = None,
    policy: Policy | None = None,
    hold: int = 1,
    seed: int = 0,
    max_steps: int = 10_000,
    progress: bool = True,
    workers: int = 0,
    address: str | None = None,
) -> Episodes:
    """Play episodes and keep them in memory.

    Episode i is a function of ``seed + i``, however many workers play: it is what
    ``collect(env, 1, seed=seed + i)`` records (if the policy draws nothing at random).

    Args:
        env: a Gymnasium environment with uint8 (H, W, C) or float (D,) observations, a function
            that makes one, or its id (``"module:namespace/Name-v0"`` imports the module first). An
            environment made here is closed here; one that was passed in is left open.
        episodes: how many, at least 1. Episode i is reset with ``seed + i``.
        steps: instead of ``episodes``: as many as it takes to have that many steps.
        policy: observation to action; None draws uniformly from the action space.
        hold: steps for which each action is repeated, as ``agents.HoldAction`` will.
        seed: of the environment and of the random policy.
        max_steps: an episode that has not ended by then is cut, as a truncation.
        progress: show a progress bar on a terminal.
        workers: processes that play, with ``episodes`` and an id or a function; 0 plays in this
            one. See ``worldmodel.cluster.scatter``, also for more errors.
        address: of a Ray cluster, for workers on other machines.

    Raises:
        ValueError: a space is not supported, a number is out of range, not exactly one of
            ``episodes`` and ``steps`` is given, or workers are asked for a number of ``steps``.
        TypeError: workers would have to share an environment.
    """
    wanted = episodes if episodes is not None else steps
    if wanted is None or (episodes is not None and steps is not None):
        raise ValueError(f"episodes, steps: give exactly one, got {episodes} and {steps}")
    if min(wanted, hold, max_steps) < 1:
        raise ValueError(
            f"{'steps' if episodes is None else 'episodes'}, hold, max_steps: expected at least 1, "
            f"got {wanted}, {hold}, {max_steps}"
        )
    if workers and episodes is None:
        raise ValueError(
            "workers: need a number of episodes, got steps: which comes last is told "
            "only by those before it"
        )
    if workers and isinstance(env, gym.Env):
        raise TypeError("env: workers make their own; pass its id, or a function that makes it")
    player = _Player(env, policy, hold, max_steps)
    made = player.made()
    try:
        spec = Spec.from_spaces(made.observation_space, made.action_space, window=1)
        if workers:
            size = -(-wanted // (BLOCKS_PER_WORKER * workers))
            blocks = [range(seed + i, seed + min(i + size, wanted)) for i in range(0, wanted, size)]
            parts: Iterator[list[Episode]] = scatter(player.block, blocks, workers, address)
        else:
            parts = ([player.play(made, spec, one)] for one in count(seed))
        recorded = _recorded(parts, wanted, "step" if episodes is None else "episode", progress)
    finally:
        if not isinstance(env, gym.Env):
            made.close()
    return Episodes(recorded, spec.action, spec.observation_space())


def _recorded(
    parts: Iterable[list[Episode]], wanted: int, unit: str, progress: bool
) -> list[Episode]:
    """Of the parts, until there are so many episodes or steps."""
    recorded, done = list[Episode](), 0
    with tqdm(total=wanted, desc="collect", unit=unit, disable=None if progress else True) as bar:
        for part in parts:
            recorded += part
            done += sum(len(one.actions) if unit == "step" else 1 for one in part)
            bar.update(done - bar.n)
            if done >= wanted:
                break
    return recorded


@dataclass(frozen=True)
class _Player:
    """Plays the episodes of given seeds; workers have a copy."""

    env: Env | Callable[[], Env] | str
    policy: Policy | None
    hold: int
    max_steps: int

    def made(self) -> Env:
        if isinstance(self.env, gym.Env):
            return self.env
        return gym.make(self.env) if isinstance(self.env, str) else self.env()

    def block(self, seeds: Iterable[int]) -> list[Episode]:
        """In an environment of its own."""
        made = self.made()
        try:
            spec = Spec.from_spaces(made.observation_space, made.action_space, window=1)
            return [self.play(made, spec, seed) for seed in seeds]
        finally:
            made.close()

    def play(self, env: Env, spec: Spec, seed: int) -> Episode:
        _, dtype = spec.border
        observation, _ = env.reset(seed=seed)
        # Another stream than the environment's own, which is seeded with the same number.
        env.action_space.seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        frames = [np.array(observation, dtype)]  # a copy: environments may reuse their buffer
        actions: list[NDArray[Any]] = []
        rewards: list[float] = []
        terminated = truncated = False
        while not (terminated or truncated or len(actions) >= self.max_steps):
            if len(actions) % self.hold == 0:
                policy = self.policy
                action = env.action_space.sample() if policy is None else policy(frames[-1])
            observation, reward, terminated, truncated, _ = env.step(action)
            frames.append(np.array(observation, dtype))
            actions.append(np.array(action))
            rewards.append(float(reward))
        return Episode(
            np.stack(frames), np.stack(actions), np.array(rewards, np.float32), bool(terminated)
        )
