"""What does a decision cost, and what is it worth? One planner, any world models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from agents import RandomShooting, RandomShootingConfig
from agents.planners import Planner
from envs import sample_scenes
from evaluation.measurements.control import Contestant, control, decisions
from evaluation.runner.partial_results import Ledger
from worldmodel import WorldModel
from worldmodel.common.timing import interleaved


def planning(
    models: Mapping[str, WorldModel],
    env: str,
    *,
    budgets: Sequence[int] = (64, 256),
    worlds: int = 4,
    hold: int = 5,
    episodes: int = 100,
    repeats: int = 5,
    seed: int = 0,
    workers: int = 0,
    address: str | None = None,
    ledger: Ledger | None = None,
) -> list[dict[str, Any]]:
    """Rows ``model, plans, worlds, seconds, plans_per_second``, and what ``control`` says.

    ``seconds`` is the median time of one decision of random shooting for one agent, whose plans
    look as far as the window; what all models do is timed in turns.

    Args:
        models: by name, made for ``env`` at one frame size.
        env: id of one of our environments with an agent.
        budgets: plans of a decision.
        worlds: that each plan is scored in.
        hold: steps for which each action is held.
        episodes: real episodes to play; 0 only takes the time.
        repeats: timed decisions.
        seed: of episodes, plans and worlds.
        workers, address: of the episodes, as for ``control``; time is taken here.
        ledger: keeps what was played; time is taken anew.

    Raises:
        ValueError: ``hold`` is not between 1 and a model's window, or ``episodes`` is neither 0
            nor enough for an interval.
    """
    if episodes < 0 or episodes == 1:
        raise ValueError(f"episodes: expected 0, or at least 2 for an interval, got {episodes}")
    planners = {
        (name, plans): _planner(model, plans, worlds, hold, seed)
        for name, model in models.items()
        for plans in budgets
    }
    size = next(iter(models.values())).spec.observation[1]
    scene = sample_scenes(env, 1, split="test", size=size, seed=seed)
    frame = scene.observations(torch.zeros(1, 1, dtype=torch.int64))[:, 0].numpy()
    jobs = {key: _decision(planner, frame) for key, planner in planners.items()}
    rows = []
    for (name, plans), rounds in interleaved(jobs, repeats).items():
        seconds = float(np.median(rounds))
        row = {"model": name, "plans": plans, "worlds": worlds, "seconds": seconds}
        rows.append({**row, "plans_per_second": plans / seconds})
    if not episodes:
        return rows
    players = {f"{name}, {plans}": Contestant(one) for (name, plans), one in planners.items()}
    played = control(
        env, players, size=size, episodes=episodes, hold=hold, seed=seed, workers=workers,
        address=address, ledger=ledger,
    )  # fmt: skip
    for row, told in zip(rows, played, strict=True):
        del told["agent"], told["real_steps"]
        row |= told
    return rows


def _planner(model: WorldModel, plans: int, worlds: int, hold: int, seed: int) -> Planner:
    config = RandomShootingConfig(
        plans=plans, worlds=worlds, horizon=decisions(model, hold), hold=hold, seed=seed
    )
    return RandomShooting(model, config)


def _decision(planner: Planner, frame: np.ndarray[Any, Any]) -> Callable[[], object]:
    return lambda: planner.predict(frame)
