"""Returns in real environments, on a scale from random play (0) to the oracle (1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from evaluation.metrics.statistics import normalised_return
from evaluation.runner.partial_results import Ledger
from worldmodel import ActionSpec, WorldModel

RANDOM_PLAYS = 64
"""Random plays of each episode's scene; their mean is that episode's 0."""
BLOCK = 100
"""Episodes that one worker plays in a row; whatever the number of workers, so that they agree."""


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


def decisions(model: WorldModel, hold: int) -> int:
    """How many decisions that are held for ``hold`` steps each fit the model's window.

    Raises:
        ValueError: ``hold`` is below 1, or none fits.
    """
    if not 1 <= hold <= model.spec.window:
        raise ValueError(
            f"hold: expected from 1 to {model.spec.window}, the model's window, got {hold}"
        )
    return model.spec.window // hold


def reference(env: str, episodes: int, hold: int, seed: int = 0) -> Reference:
    """Random play with held actions, and the best, on the test episodes seed, seed + 1, ...

    Args:
        env: id of one of our environments with an agent.
        episodes: how many.
        hold: steps for which random play holds each action.
        seed: of the first episode, and of random play.

    Raises:
        ValueError: the environment is not one of ours, or a number is below 1.
    """
    if episodes < 1 or hold < 1:
        raise ValueError(f"episodes, hold: expected at least 1, got {episodes} and {hold}")
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


Recipe = Callable[[], Contestant]
"""Makes a contestant, where it plays."""


def control(
    env: str,
    contestants: Mapping[str, Contestant | Recipe],
    *,
    size: int = 32,
    episodes: int = 100,
    hold: int = 5,
    seed: int = 0,
    workers: int = 0,
    address: str | None = None,
    ledger: Ledger | None = None,
) -> list[dict[str, Any]]:
    """Rows ``agent, env, real_steps, return, normalised_return, low, high, episodes``.

    All play the same test episodes; intervals are 95%, over episodes. Rows do not depend on the
    number of workers: each takes one contestant and a block of episodes, or trains one and plays
    all.

    Args:
        env: id of one of our environments with an agent, such as narratives/TravelingSalesman-v0.
        contestants: by name; or functions that make them, as long as training takes.
        size: frame size.
        episodes: real episodes, at least 2.
        hold: steps for which each action is held.
        seed: of the first episode; agents draw what the first episode of their block says.
        workers: processes, through Ray; 0 plays here. See ``worldmodel.common.cluster.scatter``.
        address: of a Ray cluster, for workers on other machines.
        ledger: keeps what is done, block by block.

    Raises:
        ValueError: fewer than 2 episodes, of which there is no interval; or ``hold`` is below 1.
    """
    if episodes < 2:  # before anything is trained or played
        raise ValueError(f"episodes: expected at least 2, for an interval, got {episodes}")
    scale = reference(env, episodes, hold, seed)
    blocks = [range(seed + i, seed + min(i + BLOCK, episodes)) for i in range(0, episodes, BLOCK)]
    items: dict[str, Item] = {
        f"{name}, episodes {part[0].start} to {part[-1].stop - 1}": (name, one, part)
        for name, one in contestants.items()
        for part in ([[block] for block in blocks] if isinstance(one, Contestant) else [blocks])
    }
    task = partial(_play_item, env, size, hold)
    parts = (ledger or Ledger()).each(task, items, "control", "block", workers, address)
    found: dict[str, list[float]] = {}
    steps: dict[str, int] = {}
    for (name, _, _), (spent, returns) in zip(items.values(), parts, strict=True):
        found.setdefault(name, []).extend(returns)
        steps[name] = spent
    rows = []
    for name, got in found.items():
        returns = np.array(got)
        value = normalised_return(returns, scale.random, scale.oracle, seed)
        row = {"agent": name, "env": env, "real_steps": steps[name]}
        row |= {"return": float(returns.mean()), "normalised_return": value.value}
        rows.append({**row, "low": value.low, "high": value.high, "episodes": value.n})
    return rows


Item = tuple[str, Contestant | Recipe, Sequence[range]]
"""Name, who plays, and the seeds of its blocks of episodes."""


def _play_item(env: str, size: int, hold: int, item: Item) -> tuple[int, NDArray[np.float64]]:
    """Real steps spent, and returns of all its episodes."""
    _, one, blocks = item
    one = one if isinstance(one, Contestant) else one()
    returns = []
    for block in blocks:
        reseed = getattr(one.agent, "set_random_seed", None)
        if reseed is not None:
            reseed(block.start)
        returns.append(
            played(env, one, size=size, episodes=len(block), hold=hold, seed=block.start)
        )
    return one.real_steps, np.concatenate(returns)


def played(
    env: str, one: Contestant, *, size: int, episodes: int, hold: int, seed: int
) -> NDArray[np.float64]:
    """Returns (episodes,) of the test episodes seed, seed + 1, ..."""
    make = partial(gym.make, f"envs:{env}", size=size, split="test")
    return evaluate(
        one.agent, make, episodes, seed=seed, hold=hold, frame_stack=one.frame_stack,
        wrap=one.wrap, progress=True,
    )  # fmt: skip
