"""Agents that learn, each with the same number of real steps: with a world model and without."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import worldmodel
from agents import InversePolicy, InversePolicyConfig
from agents.training import run as runs
from agents.training.run_config import RunConfig
from evaluation.measurements.control import Contestant, Recipe, decisions
from evaluation.runner.progress import on_terminal
from worldmodel import collect

FRAME_STACK = 4
SEEN = "PPO in imagination"


def learners(
    checkpoint: str,
    env: str,
    real_steps: int,
    *,
    imagined_steps: int = 30_000,
    hold: int = 5,
    seed: int = 0,
) -> dict[str, Recipe]:
    """Contestants for ``control`` by name, trained when it is their turn, where they play.

    PPO in imagination takes no real step. With lookahead, with Dyna (imagined transitions beside
    real ones, in the world model as it is), and without a world model at all (PPO, DQN) they learn
    from ``real_steps``. The inverse policy clones the best tenth of as many random ones.

    Args:
        checkpoint: of the world model, made for the environment; found wherever they play.
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
    real: dict[str, Any] = {**shared, "steps": real_steps // hold, "num_envs": 8}
    dyna = {**real, "horizon": horizon, "ratio": 3.0, "num_envs": 16, "fit_every": 500}
    ways = {
        SEEN: RunConfig(
            **shared, model=checkpoint, steps=imagined_steps, num_envs=32, frame_stack=FRAME_STACK
        ),
        "PPO with lookahead": RunConfig(**real, how="lookahead", model=checkpoint),
        "DQN with Dyna": RunConfig(
            **dyna,
            how="dyna",
            algorithm="dqn",
            model=checkpoint,
            fit_steps=0,
            frame_stack=FRAME_STACK,
        ),
        "PPO": RunConfig(**real, how="real", frame_stack=FRAME_STACK),
        "DQN": RunConfig(**real, how="real", algorithm="dqn", frame_stack=FRAME_STACK),
    }
    found: dict[str, Recipe] = {
        name: partial(_trained, config, 0 if name == SEEN else real_steps)
        for name, config in ways.items()
    }
    return {**found, "inverse policy": partial(_inverse, ways["PPO"], real_steps)}


def _trained(config: RunConfig, real_steps: int) -> Contestant:
    with tempfile.TemporaryDirectory() as folder:
        agent = runs.train(config, Path(folder) / "agent", evaluate_every=0, progress=on_terminal())
    model = None if config.model is None else worldmodel.load(config.model)
    return Contestant(agent, config.frame_stack, real_steps, config.wrap(model))


def _inverse(config: RunConfig, real_steps: int) -> Contestant:
    seed = config.seed
    episodes = collect(config.make_env(), steps=real_steps, hold=config.hold, seed=seed)
    settings = InversePolicyConfig(hold=config.hold, frame_stack=FRAME_STACK, seed=seed)
    return Contestant(InversePolicy.fit(episodes, settings), FRAME_STACK, episodes.steps)
