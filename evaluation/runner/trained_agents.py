"""Agents to compare, and how to train those that learn from the same number of real steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

import worldmodel
from agents import InversePolicy, InversePolicyConfig
from agents.planners.base import Agent
from agents.training import run as runs
from agents.training.run_config import RunConfig
from worldmodel import WorldModel, collect

FRAME_STACK = 4
IMAGINED = "PPO in imagination"
FROM_FRAMES: dict[str, Any] = {"frame_stack": FRAME_STACK, "num_envs": 32}
"""Of PPO in imagination, where it does not look ahead."""


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


Recipe = Callable[[], Contestant]
"""Makes a contestant, in the process in which it plays."""


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


def imagined_agents(
    checkpoint: str, env: str, imagined_steps: int, depth: int, hold: int, seeds: range
) -> dict[str, Recipe]:
    """Recipes for ``Control.play`` by name, one for each seed: PPO that learns in imagination.

    Args:
        checkpoint, env, hold: as in ``trained_agents``.
        imagined_steps: decisions that it learns from.
        depth: decisions that lookahead searches, in imagination and in the real environment; with 1
            the agent sees four frames instead.
        seeds: of everything random.

    Raises:
        ValueError: ``imagined_steps`` or ``depth`` is below 1.
    """
    size = worldmodel.load(checkpoint).spec.observation[1]
    shared: dict[str, Any] = {"env": f"envs:{env}", "hold": hold, "size": size}
    shared |= {"model": checkpoint, "steps": imagined_steps}
    shared |= FROM_FRAMES if depth == 1 else {"depth": depth}
    return {
        f"{IMAGINED}, seed {seed}": partial(_train, RunConfig(**shared, seed=seed), 0)
        for seed in seeds
    }


def trained_agents(
    checkpoint: str,
    env: str,
    real_steps: int,
    *,
    imagined_steps: int = 30_000,
    hold: int = 5,
    seed: int = 0,
) -> dict[str, Recipe]:
    """Recipes for ``Control.play`` by name: each agent is trained where and when it plays.

    PPO in imagination takes no real step. With lookahead, with Dyna (imagined transitions added to
    real ones, in the world model as it is), and without a world model at all (PPO, DQN) they learn
    from ``real_steps``. The inverse policy clones the best tenth of as many random ones.

    Args:
        checkpoint: of the world model, made for the environment; readable wherever they play.
        env: id of one of our environments with an agent.
        real_steps: of the environment, for each.
        imagined_steps: decisions of PPO in imagination.
        hold: steps that each action is held.
        seed: of everything random.

    Raises:
        ValueError: ``real_steps`` are fewer than a decision, or ``hold`` is not between 1 and the
            model's window.
    """
    if real_steps < hold:
        raise ValueError(f"real_steps: expected at least {hold}, one decision, got {real_steps}")
    model = worldmodel.load(checkpoint)
    size = model.spec.observation[1]
    horizon = decisions(model, hold)
    shared: dict[str, Any] = {"env": f"envs:{env}", "hold": hold, "size": size, "seed": seed}
    stacked = {**shared, "frame_stack": FRAME_STACK}
    real: dict[str, Any] = {"steps": real_steps // hold, "num_envs": 8}
    dyna = {**real, "horizon": horizon, "branches": 3, "updates": 4, "num_envs": 16}
    dyna["fit_every"] = 500
    configs = {
        IMAGINED: RunConfig(**shared, **FROM_FRAMES, model=checkpoint, steps=imagined_steps),
        "PPO with lookahead": RunConfig(**shared, **real, method="lookahead", model=checkpoint),
        "DQN with Dyna": RunConfig(
            **stacked, **dyna, method="dyna", algorithm="dqn", model=checkpoint, fit_steps=0
        ),
        "PPO": RunConfig(**stacked, **real, method="real"),
        "DQN": RunConfig(**stacked, **real, method="real", algorithm="dqn"),
    }
    recipes: dict[str, Recipe] = {
        name: partial(_train, config, 0 if name == IMAGINED else real_steps)
        for name, config in configs.items()
    }
    return {**recipes, "inverse policy": partial(_clone, configs["PPO"], real_steps)}


def _train(config: RunConfig, real_steps: int) -> Contestant:
    with tempfile.TemporaryDirectory() as folder:
        agent = runs.train(config, Path(folder) / "agent", evaluate_every=0, progress=True)
    model = None if config.model is None else worldmodel.load(config.model)
    return Contestant(agent, config.frame_stack, real_steps, config.wrap(model))


def _clone(config: RunConfig, real_steps: int) -> Contestant:
    seed = config.seed
    episodes = collect(config.make_env(), steps=real_steps, hold=config.hold, seed=seed)
    settings = InversePolicyConfig(hold=config.hold, frame_stack=FRAME_STACK, seed=seed)
    return Contestant(InversePolicy.fit(episodes, settings), FRAME_STACK, episodes.steps)
