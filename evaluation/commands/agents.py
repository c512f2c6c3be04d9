"""Verbs that measure what world models are worth to agents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tyro

import worldmodel
from agents import (
    Cem,
    CemConfig,
    Mppi,
    MppiConfig,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
)
from agents.actions import count_choices
from evaluation.commands.base import Command, OfCheckpoints, Row, Scattered
from evaluation.measurements.common_worlds import INTERCEPT, common_worlds
from evaluation.measurements.control import Contestant, Recipe, control, decisions
from evaluation.measurements.efficiency import Protocol, efficiency
from evaluation.measurements.planning import planning
from evaluation.measurements.scaling import scaling
from evaluation.measurements.story_consistency import AGENT
from evaluation.measurements.vector_envs import vectors
from evaluation.metrics.return_scale import WITH_AN_AGENT, scales
from evaluation.runner.partial_results import Ledger
from evaluation.runner.trained_agents import learners
from worldmodel import WorldModel


@dataclass(frozen=True)
class Returns(Command):
    """The scale of returns: what random play gets, and the best that could be got."""

    benchmark = "returns"
    columns = ("env", "hold", "metric", "value", "low", "high", "n")
    envs: tuple[str, ...] = WITH_AN_AGENT
    """Ids of ours, each with a colon and the steps that a random action is held."""
    scenes: int = 1024
    seed: int = 0

    def rows(self, ledger: Ledger) -> list[Row]:
        """Play."""
        return scales(self.envs, self.scenes, self.seed)


@dataclass(frozen=True)
class Control(Command, Scattered):
    """Real returns of planners and agents, normalised to random play 0 and the oracle 1."""

    benchmark = "control"
    columns = ("agent", "real_steps", "return", "normalised_return", "low", "high", "episodes")
    checkpoint: str = "traveling-salesman"
    env: str = AGENT
    """One of our environments with an agent."""
    episodes: int = 200
    plans: int = 256
    """In all, for each decision of each planner. Tree search plays where these are enough for
    every action at each of its levels."""
    worlds: int = 4
    hold: int = 5
    real_steps: int = 0
    """Agents that learn from as many real steps play, too; 0 for planners only."""
    seed: int = 0
    device: str = "cpu"

    def trained(self) -> tuple[str, ...]:
        """The planners' world model."""
        return (self.checkpoint,)

    def rows(self, ledger: Ledger) -> list[Row]:
        """Train if wanted, play."""
        model = worldmodel.load(self.checkpoint, self.device)
        contestants: dict[str, Contestant | Recipe] = {**self._planners(model)}
        if self.real_steps:
            contestants |= learners(
                self.checkpoint, self.env, self.real_steps, hold=self.hold, seed=self.seed
            )
        return control(
            self.env, contestants, size=model.spec.observation[1], episodes=self.episodes,
            hold=self.hold, seed=self.seed, ledger=ledger, **self.where(self.device),
        )  # fmt: skip

    def _planners(self, model: WorldModel) -> dict[str, Contestant]:
        horizon = decisions(model, self.hold)
        shared: dict[str, Any] = {
            "worlds": self.worlds, "horizon": horizon, "hold": self.hold, "seed": self.seed,
        }  # fmt: skip
        rounds = 4  # of refinement: each planner draws as many plans in all
        refined = {**shared, "plans": max(1, self.plans // rounds), "iterations": rounds}
        shooting = RandomShooting(model, RandomShootingConfig(plans=self.plans, **shared))
        found = {
            "random": Contestant(RandomAgent(model.spec.action.to_space(), self.seed)),
            "random shooting": Contestant(shooting),
            "CEM": Contestant(Cem(model, CemConfig(**refined))),
            "MPPI": Contestant(Mppi(model, MppiConfig(**refined))),
        }
        choices = count_choices(model.spec.action)
        if choices is not None and self.plans >= choices * horizon:
            grown = TreeSearchConfig(plans=self.plans, **shared)
            found["tree search"] = Contestant(TreeSearch(model, grown))
        return found


@dataclass(frozen=True)
class Planning(OfCheckpoints, Scattered):
    """What a decision costs and what it is worth: one planner, several world models."""

    benchmark = "planning"
    columns = (
        "model", "plans", "worlds", "seconds", "plans_per_second", "normalised_return", "low",
        "high", "episodes",
    )  # fmt: skip
    env: str = AGENT
    budgets: tuple[int, ...] = (64, 256)
    """Plans of a decision."""
    worlds: int = 4
    hold: int = 5
    episodes: int = 100
    """Real episodes to play; 0 only takes the time."""
    repeats: int = 5
    """Timed decisions; the median counts."""

    def rows(self, ledger: Ledger) -> list[Row]:
        """Time, play."""
        models = {name: worldmodel.load(name, self.device) for name in self.checkpoints}
        return planning(
            models, self.env, budgets=self.budgets, worlds=self.worlds, hold=self.hold,
            episodes=self.episodes, repeats=self.repeats, seed=self.seed, ledger=ledger,
            **self.where(self.device),
        )  # fmt: skip


@dataclass(frozen=True)
class CommonWorlds(Command):
    """Variance of the difference between two plans' scores, in the same worlds and in others."""

    benchmark = "common-worlds"
    columns = ("plans", "shared", "independent", "ratio", "low", "high", "n")
    checkpoint: tyro.conf.Positional[str]
    """Folder, shipped name or hub id."""
    env: str = INTERCEPT
    scenes: int = 64
    worlds: int = 8
    hold: int = 5
    seed: int = 0

    def trained(self) -> tuple[str, ...]:
        """The planners' world model."""
        return (self.checkpoint,)

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        model = worldmodel.load(self.checkpoint)
        return common_worlds(
            model, self.env,
            scenes=self.scenes, worlds=self.worlds, hold=self.hold, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Efficiency(Command, Scattered, Protocol):
    """Real steps that imagination saves: PPO with it and without, to 80% of the latter's return."""

    benchmark = "efficiency"
    columns = ("agent", "of", "seed", "real_steps", "return", "value", "low", "high")

    def rows(self, ledger: Ledger) -> list[Row]:
        """Train all, measure."""
        return efficiency(self, ledger, self.workers, self.ray)


@dataclass(frozen=True)
class Vectors(Command, Scattered):
    """Real returns of the README's recipes for CartPole and Pendulum, learned in imagination."""

    benchmark = "vectors"
    columns = (
        "env", "agent", "real_steps", "imagined_steps", "seed", "return", "low", "high", "episodes",
    )  # fmt: skip
    seeds: int = 1
    """Runs of each, three to five minutes each; each records, trains and learns anew."""

    def rows(self, ledger: Ledger) -> list[Row]:
        """Train, play."""
        return vectors(seeds=self.seeds, ledger=ledger, workers=self.workers, address=self.ray)


@dataclass(frozen=True)
class Scaling(Command):
    """Throughput of collection, evaluation and training with one worker and with two."""

    benchmark = "scaling"
    columns = ("kind", "workers", "unit", "per_second", "speedup", "low", "high", "n", "load")
    checkpoint: str = "traveling-salesman"
    env: str = AGENT
    """One of our environments with an agent, that of the checkpoint."""
    workers: tuple[int, ...] = (1, 2)
    """Numbers of Ray's workers, and of training processes; the first is the measure."""
    episodes: int = 400
    """Recorded in each round."""
    steps: int = 150
    """Of training, in each round."""
    repeats: int = 6
    """Rounds; from 6 on their intervals are of 95%."""

    def trained(self) -> tuple[str, ...]:
        """The planners' world model."""
        return (self.checkpoint,)

    def rows(self, ledger: Ledger) -> list[Row]:
        """Measure."""
        return scaling(
            self.env, self.checkpoint, workers=self.workers, episodes=self.episodes,
            steps=self.steps, repeats=self.repeats,
        )  # fmt: skip
