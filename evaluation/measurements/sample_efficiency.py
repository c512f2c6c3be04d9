"""How many real steps does a level of return take, with a world model and without?

Every method learns online, from nothing, with its settings of ``agents.recipes``, and is evaluated
on the same real episodes after the same numbers of real steps. What counts is the first evaluation
at or above the level. Runs that never get there count with their budget; a ratio that hangs on one
of them is only a bound, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

import agents
from agents import recipes
from evaluation.metrics import steps_to_level as steps_metrics
from evaluation.metrics.steps_to_level import StepsToLevel
from evaluation.runner.learning_curve import TEST_SEED, LearningCurve, Policy, Protocol
from evaluation.runner.measurement import Measurement, Row, Scattered
from evaluation.runner.partial_results import PartialResults
from worldmodel.common import results
from worldmodel.data.make_env import Env, make_env, open_env


class Task(NamedTuple):
    """An environment, and what is to be reached in it.

    Attributes:
        level: mean return.
        every: real steps between the first evaluations.
        budget: real steps of methods with a world model, and the range of the area.
        real_budget: real steps of methods without.
        seeds: runs of each method.
    """

    level: float
    every: int
    budget: int
    real_budget: int
    seeds: int = 5


TASKS: dict[str, Task] = {  # in this order they are measured
    "CartPole-v1": Task(475, 250, 4000, 60_000),
    "Pendulum-v1": Task(-200, 250, 5000, 20_000),
    "Acrobot-v1": Task(-100, 500, 10_000, 60_000),
    "InvertedPendulum-v5": Task(950, 250, 5000, 40_000),
    "MountainCarContinuous-v0": Task(90, 250, 10_000, 50_000),
    "LunarLander-v3": Task(200, 1000, 15_000, 150_000, 3),
    "LunarLanderContinuous-v3": Task(200, 1000, 40_000, 150_000, 3),
    "MountainCar-v0": Task(-110, 250, 5000, 120_000),
    "Reacher-v5": Task(-5, 500, 10_000, 100_000, 3),
    "Hopper-v5": Task(3000, 2000, 60_000, 250_000, 3),
    "HalfCheetah-v5": Task(3000, 2000, 40_000, 150_000, 3),
}
DEFAULT = tuple(TASKS)[:6]

REAL = {"ppo": "PPO", "dqn": "DQN", "sac": "SAC"}
"""Methods without a world model: those of ``agents.recipes.TUNED``, by algorithm."""
RANDOM = "random play"


class Run(NamedTuple):
    """One part of the measurement."""

    env: str
    method: str
    seed: int
    protocol: Protocol


@dataclass(frozen=True)
class SampleEfficiency(Measurement, Scattered):
    """Real steps to a level of return, with a world model and without."""

    name = "sample-efficiency"
    selecting = frozenset({"envs", "methods", "seeds"})
    envs: tuple[str, ...] = DEFAULT
    """Gymnasium ids, measured in this order."""
    methods: tuple[str, ...] = ()
    """Methods, of those that an environment has; () for all of them."""
    seeds: int | None = None
    """Runs of each; by default 5 in small environments, 3 in large ones."""
    budget: int | None = None
    """Real steps at which every run ends; by default those of the environment, more for methods
    without a world model."""
    episodes: int = 20
    """Real episodes of an evaluation."""
    first_episodes: int = 5
    """Of these; the others are played if the mean of the first ones misses the level by at most a
    quarter."""
    patience: int = 3
    """Evaluations in a row at or above the level after which a run ends early."""

    def __post_init__(self) -> None:
        for env in self.envs:
            if env not in TASKS:
                raise ValueError(f"envs: expected some of {', '.join(TASKS)}; got {env!r}")
        known = dict.fromkeys(method for env in self.envs for method in methods_of(env))
        for method in self.methods:
            if method not in known:
                raise ValueError(
                    f"methods: expected some of {', '.join(known)}, those of the environments; got "
                    f"{method!r}"
                )
        for name in ("seeds", "budget"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows by ``kind``, of each environment:

        - ``random``: ``env, return``, of random play.
        - ``return``: ``env, method, seed, real_steps, return, episodes``, an evaluation each.
        - ``run``: ``env, method, seed, level, steps, reached, budget, area, seconds``. ``steps``
          are real ones to the level; ``area`` is the mean return over the real steps that a method
          with a world model has (or fewer, if the budget is), ``seconds`` the time of learning.
        - ``steps``: ``env, method, level, value, low, high, n, reached, censored, area, seconds``.
          The median of ``steps`` with its interval (see ``statistics.median``), a lower bound if it
          is ``censored``; how many of the n runs reached the level; medians of the others.
        - ``ratio``: ``env, method, of, value, low, high, n, bound``: median steps of ``of``, which
          has no world model, over those of the method; 95% by a bootstrap over the runs of both.
          ``bound`` says what censored medians make of it: "at least", "at most", "undecided".
        """
        for env in self.envs:  # before anything is trained
            with open_env(env):
                pass
        runs = self.runs()
        names = {f"{run.env}, {run.method}, seed {run.seed}": run for run in runs}
        made = partial_results.each(run_one, names, self.name, "run", **self.cluster())
        floors = {f"{env}, {RANDOM}": env for env in self.envs}
        random = partial_results.each(self._random_play, floors, RANDOM)
        rows: list[Row] = []
        for env, floor in zip(self.envs, random, strict=True):
            done = [(run, one) for run, one in zip(runs, made, strict=True) if run.env == env]
            rows.append({"kind": "random", "env": env, "method": RANDOM, "return": floor})
            rows += self._rows_of(env, floor, done)
        return rows

    def runs(self) -> list[Run]:
        """All runs, in the order in which they are made: the most telling first."""
        chosen = []
        for env in self.envs:
            task = TASKS[env]
            for method in methods_of(env):
                if self.methods and method not in self.methods:
                    continue
                budget = task.real_budget if method in REAL else task.budget
                budget = budget if self.budget is None else min(budget, self.budget)
                protocol = Protocol(
                    task.level, task.every, budget, self.episodes, self.first_episodes,
                    self.patience,
                )  # fmt: skip
                seeds = task.seeds if self.seeds is None else self.seeds
                chosen += [Run(env, method, seed, protocol) for seed in range(seeds)]
        return chosen

    def _random_play(self, env: str) -> float:
        with open_env(env) as made:
            agent = agents.RandomAgent(made.action_space, 0)
        return float(agents.evaluate(agent, env, self.episodes, TEST_SEED).mean())

    def _rows_of(
        self, env: str, floor: float, done: Sequence[tuple[Run, dict[str, Any]]]
    ) -> list[Row]:
        task = TASKS[env]
        common = task.budget if self.budget is None else min(task.budget, self.budget)
        rows: list[Row] = []
        by_method: dict[str, list[Row]] = {}
        needed: dict[str, list[StepsToLevel]] = {}
        for run, one in done:
            of_run: Row = {"env": env, "method": run.method, "seed": run.seed}
            points = [(int(steps), float(value)) for steps, value, _ in one["points"]]
            for steps, value, episodes in one["points"]:
                at = {"real_steps": steps, "return": value, "episodes": episodes}
                rows.append({"kind": "return", **of_run, **at})
            taken = steps_metrics.steps_to_level(points, task.level, run.protocol.budget)
            needed.setdefault(run.method, []).append(taken)
            row = {
                "kind": "run", **of_run, "level": task.level, "steps": taken.steps,
                "reached": taken.reached, "budget": run.protocol.budget,
                "area": steps_metrics.area(points, floor, common, self.patience),
                "seconds": one["seconds"],
            }  # fmt: skip
            by_method.setdefault(run.method, []).append(row)
            rows.append(row)
        for method, of_method in by_method.items():
            runs = needed[method]
            rows.append({
                "kind": "steps", "env": env, "method": method, "level": task.level,
                **steps_metrics.median_steps(runs).columns(),
                "reached": sum(run.reached for run in runs),
                "censored": steps_metrics.median_is_censored(runs),
                **{
                    name: float(np.median([row[name] for row in of_method]))
                    for name in ("area", "seconds")
                },
            })  # fmt: skip
        for method in (name for name in needed if name not in REAL):
            for other in (name for name in needed if name in REAL):
                fewer = steps_metrics.times_fewer(needed[method], needed[other])
                row = {"kind": "ratio", "env": env, "method": method, "of": other}
                rows.append({**row, **fewer.ratio.columns(), "bound": fewer.bound})
        return rows

    def text(self, rows: list[Row]) -> str:
        """A table of steps, and one of ratios."""
        parts = []
        for kind, columns in (
            ("steps", ("env", "method", "level", "value", "low", "high", "n", "reached", "censored",
                       "area", "seconds")),
            ("ratio", ("env", "method", "of", "value", "low", "high", "n", "bound")),
        ):  # fmt: skip
            of_kind = [row for row in rows if row["kind"] == kind]
            if of_kind:
                parts.append(f"{kind}\n{results.table(of_kind, columns)}")
        return "\n\n".join(parts)


def methods_of(env: str) -> list[str]:
    """The methods of an environment: the best without a world model, those with one, the others."""
    first, *others = (each.algorithm for each in recipes.TUNED[env])
    return [first, *(each.name for each in recipes.IMAGINED[env]), *others]


def run_one(run: Run) -> dict[str, Any]:
    """``points`` and ``seconds`` of the run's ``LearningCurve``."""
    current = _Current()
    curve = LearningCurve(
        run.protocol, run.env, current.policy, f"{run.env}, {run.method}, seed {run.seed}"
    )

    def counted() -> Env:
        return curve.count(make_env(run.env))

    if run.method in REAL:
        real = next(each for each in recipes.TUNED[run.env] if each.algorithm == run.method)
        agent = real.make(counted, run.seed)
        curve.run(lambda: agent.learn(real.steps, callback=current))
    else:
        imagined = next(each for each in recipes.IMAGINED[run.env] if each.name == run.method)
        current.hold, longer = imagined.hold, replace(imagined, steps=run.protocol.budget)
        curve.run(lambda: longer.learn(counted, run.seed, current))
    return {"points": curve.points, "seconds": curve.seconds}


class _Current(BaseCallback):
    """Knows the agent that learns, once there is one."""

    hold = 1

    def policy(self) -> Policy | None:
        """It, and how it plays."""
        agent: Any = getattr(self, "model", None)
        if agent is None:
            return None
        wrap = recipes.normaliser(agent) if isinstance(agent, BaseAlgorithm) else None
        return Policy(agent, wrap, self.hold)

    def _on_step(self) -> bool:
        return True
