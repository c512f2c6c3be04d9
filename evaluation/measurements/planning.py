"""What does a decision cost, and what is it worth? One planner, any world models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import tyro

import worldmodel
from agents import RandomShooting, RandomShootingConfig
from envs import sample_scenes
from evaluation.measurements.control import Control
from evaluation.runner.measurement import OfCheckpoints, Row, Scattered, environment
from evaluation.runner.partial_results import PartialResults
from evaluation.runner.trained_agents import Contestant, decisions
from worldmodel import WorldModel
from worldmodel.common.timing import interleaved


@dataclass(frozen=True)
class Planning(OfCheckpoints, Scattered):
    """What a decision costs and what it is worth: one planner, several world models."""

    name = "planning"
    columns = (
        "model", "plans", "worlds", "seconds", "plans_per_second", "normalised_return", "low",
        "high", "episodes",
    )  # fmt: skip
    checkpoints: tyro.conf.Positional[tuple[str, ...]] = ("traveling-salesman",)
    """Folders, shipped names or hub ids."""
    budgets: tuple[int, ...] = (64, 256)
    """Plans of a decision."""
    worlds: int = 4
    """That each plan is scored in."""
    hold: int = 5
    """Steps for which each action is held."""
    episodes: int = 100
    """Real episodes to play; 0 only takes the time."""
    repeats: int = 5
    """Timed decisions; the median counts."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``compare``."""
        models = {name: worldmodel.load(name, self.device) for name in self.checkpoints}
        return self.compare(models, partial_results)

    def compare(
        self, models: Mapping[str, WorldModel], partial_results: PartialResults | None = None
    ) -> list[Row]:
        """Rows ``model, plans, worlds, seconds, plans_per_second``, and those of ``Control.play``.

        ``seconds`` is the median time of one decision of random shooting for one agent, whose plans
        reach as far as the window; the models take turns.

        Args:
            models: by name, made for one environment at one frame size.
            partial_results: holds the episodes that were played; times are measured again.

        Raises:
            ValueError: ``hold`` is not between 1 and a model's window, or ``episodes`` is neither 0
                nor enough for an interval; or no environment is known.
        """
        if self.episodes < 0 or self.episodes == 1:
            raise ValueError(
                f"episodes: expected 0, or at least 2 for an interval, got {self.episodes}"
            )
        planners = {
            (name, plans): self._planner(model, plans)
            for name, model in models.items()
            for plans in self.budgets
        }
        first = next(iter(models.values()))
        env, size = environment(self.env, first.env_id), first.spec.observation[1]
        scene = sample_scenes(env, 1, split="test", size=size, seed=self.seed)
        frame = scene.observations(torch.zeros(1, 1, dtype=torch.int64))[:, 0].numpy()
        jobs = {key: partial(planner.predict, frame) for key, planner in planners.items()}
        rows: list[Row] = []
        for (name, plans), rounds in interleaved(jobs, self.repeats).items():
            seconds = float(np.median(rounds))
            row = {"model": name, "plans": plans, "worlds": self.worlds, "seconds": seconds}
            rows.append({**row, "plans_per_second": plans / seconds})
        if not self.episodes:
            return rows
        control = Control(
            env=env, episodes=self.episodes, hold=self.hold, seed=self.seed, device=self.device,
            workers=self.workers, ray=self.ray,
        )  # fmt: skip
        players = {f"{name}, {plans}": Contestant(one) for (name, plans), one in planners.items()}
        played = control.play(players, size, partial_results)
        aside = ("agent", "real_steps")
        return [
            {**row, **{name: value for name, value in returns.items() if name not in aside}}
            for row, returns in zip(rows, played, strict=True)
        ]

    def _planner(self, model: WorldModel, plans: int) -> RandomShooting:
        config = RandomShootingConfig(
            plans=plans, worlds=self.worlds, horizon=decisions(model, self.hold), hold=self.hold,
            seed=self.seed,
        )  # fmt: skip
        return RandomShooting(model, config)
