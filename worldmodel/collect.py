"""Record episodes from any Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldmodel.data import Episode, Episodes
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
    progress: bool = True,
) -> Episodes:
    """Play episodes and keep them in memory.

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
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: a space is not supported, a number is below 1, or not exactly one of
            ``episodes`` and ``steps`` is given.
    """
    wanted = episodes if episodes is not None else steps
    if wanted is None or (episodes is not None and steps is not None):
        raise ValueError(f"episodes, steps: give exactly one, got {episodes} and {steps}")
    if min(wanted, hold, max_steps) < 1:
        raise ValueError(
            f"{'steps' if episodes is None else 'episodes'}, hold, max_steps: expected at least 1, "
            f"got {wanted}, {hold}, {max_steps}"
        )
    made = gym.make(env) if isinstance(env, str) else env
    try:
        spec = Spec.from_spaces(made.observation_space, made.action_space, window=1)
        made.action_space.seed(seed)
        recorded, done = list[Episode](), 0
        unit = "step" if episodes is None else "episode"
        shown = None if progress else True
        with tqdm(total=wanted, desc="collect", unit=unit, disable=shown) as bar:
            while done < wanted:
                one = _play(made, spec, policy, hold, seed + len(recorded), max_steps)
                recorded.append(one)
                done += 1 if episodes is not None else len(one.actions)
                bar.update(done - bar.n)
    finally:
        if isinstance(env, str):
            made.close()
    return Episodes(recorded, spec.action, spec.observation_space())


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
