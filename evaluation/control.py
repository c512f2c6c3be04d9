"""Returns in real environments, on a scale from random play (0) to the oracle (1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from agents import evaluate
from agents.actions import draw_actions
from agents.planners import Agent
from envs import play, simulator_of
from evaluation.statistics import normalised_return
from worldmodel import ActionSpec

RANDOM_PLAYS = 64
"""Random plays of each episode's scene; their mean is that episode's 0."""


@dataclass(frozen=True)
class Contestant:
    """An agent, and the frames that it sees.

    Attributes:
        agent: anything with SB3's ``predict``.
        frame_stack: as in training.
        real_steps: steps of the real environment that were spent on it, without its world model's.
        wrap: as in ``agents.evaluate``.
    """

    agent: Agent
    frame_stack: int = 1
    real_steps: int = 0
    wrap: Callable[[VecEnv], VecEnv] | None = None


@dataclass(frozen=True)
class Reference:
    """Both ends of the scale for some episodes: float64 (episodes,) each."""

    random: NDArray[np.float64]
    oracle: NDArray[np.float64]


def reference(env: str, episodes: int, hold: int, seed: int = 0) -> Reference:
    """Random play with held actions, and the best, on the test episodes seed, seed + 1, ...

    Args:
        env: id of one of our environments with an agent.
        episodes: how many.
        hold: steps for which random play holds each action.
        seed: of the first episode, and of random play.

    Raises:
        ValueError: the environment is not one of ours.
    """
    simulator = simulator_of(env)
    made = gym.make(f"envs:{env}", size=16, split="test")  # the size does not change the scene
    ids = [made.reset(seed=seed + i)[1]["scene"] for i in range(episodes)]
    spec = ActionSpec.from_space(made.action_space)
    made.close()
    scenes, steps = torch.tensor(ids), simulator.max_steps
    lead = (episodes * RANDOM_PLAYS, -(-steps // hold))
    actions = draw_actions(spec, lead, torch.Generator().manual_seed(seed))
    actions = actions.repeat_interleave(hold, 1)[:, :steps]
    rewards = play(simulator, scenes.repeat_interleave(RANDOM_PLAYS), actions).rewards
    plays = rewards.sum(1).view(episodes, RANDOM_PLAYS).mean(1)
    oracle = simulator.best_return(simulator.begin(scenes))
    return Reference(plays.double().numpy(), oracle.double().numpy())


def control(
    env: str,
    contestants: Mapping[str, Contestant],
    *,
    size: int = 32,
    episodes: int = 100,
    hold: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows ``agent, env, real_steps, return, normalised_return, low, high, episodes``.

    All play the same test episodes; intervals are 95%, over episodes.

    Args:
        env: id of one of our environments with an agent, such as narratives/TravelingSalesman-v0.
        contestants: by name.
        size: frame size.
        episodes: real episodes, at least 2.
        hold: steps for which each action is held.
        seed: of the first episode.
    """
    scale = reference(env, episodes, hold, seed)
    rows = []
    for name, one in contestants.items():
        returns = played(env, one, size=size, episodes=episodes, hold=hold, seed=seed)
        value = normalised_return(returns, scale.random, scale.oracle, seed)
        row = {"agent": name, "env": env, "real_steps": one.real_steps}
        row |= {"return": float(returns.mean()), "normalised_return": value.value}
        rows.append({**row, "low": value.low, "high": value.high, "episodes": value.n})
    return rows


def played(
    env: str, one: Contestant, *, size: int, episodes: int, hold: int, seed: int
) -> NDArray[np.float64]:
    """Returns (episodes,) of the test episodes seed, seed + 1, ..."""
    make = partial(gym.make, f"envs:{env}", size=size, split="test")
    return evaluate(
        one.agent, make, episodes, seed=seed, hold=hold, frame_stack=one.frame_stack,
        wrap=one.wrap, progress=True,
    )  # fmt: skip
