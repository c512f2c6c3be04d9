"""Evaluate whatever learns in an environment when it has taken so many real steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, SupportsFloat

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

import agents
from agents.planners.base import Agent
from worldmodel.common.config_checks import at_least, numbers_at_least
from worldmodel.common.progress import progress_bar
from worldmodel.data.make_env import EnvLike

TEST_SEED = 10**6
"""Of the first real episode that counts; agents learn in others."""
GROWTH = 0.05
"""Of the real steps so far: the largest distance of two evaluations."""
MARGIN = 0.25
"""Of the level's size, by which the first episodes of an evaluation may miss it: then the others
are played, too.
"""


class Policy(NamedTuple):
    """An agent, with the arguments of ``agents.evaluate`` that it needs."""

    agent: Agent
    wrap: Callable[[VecEnv], VecEnv] | None = None
    hold: int = 1


def grid(every: int, budget: int) -> list[int]:
    """Real steps after which agents are evaluated: every ``every``, later every 5%.

    Increasing multiples of ``every``, and last the budget.
    """
    numbers_at_least(1, every=every, budget=budget)
    points, step = list[int](), every
    while step < budget:
        points.append(step)
        step += max(1, int(GROWTH * step / every)) * every
    return [*points, budget]


@dataclass(frozen=True)
class Protocol:
    """When and how an agent is evaluated, and when its run ends.

    Attributes:
        level: mean return that is to be reached.
        every: real steps between the first evaluations; see ``grid``.
        budget: real steps after which the run ends.
        episodes: real ones of an evaluation, always the same.
        first_episodes: of these; the others are played if the mean of the first ones misses the
            level by at most 25% of its size.
        patience: evaluations in a row at or above the level after which the run ends, too.
    """

    level: float
    every: int
    budget: int
    episodes: int = 20
    first_episodes: int = 5
    patience: int = 3

    def __post_init__(self) -> None:
        at_least(1, self, "every", "budget", "episodes", "first_episodes", "patience")
        if self.first_episodes > self.episodes:
            raise ValueError(
                f"first_episodes: expected at most {self.episodes}, all of an evaluation, got "
                f"{self.first_episodes}"
            )

    def evaluate(self, policy: Policy, env: EnvLike) -> tuple[float, int]:
        """The mean return of the policy, played deterministically, and the number of episodes."""
        play = partial(
            agents.evaluate, policy.agent, env, hold=policy.hold, num_envs=32, wrap=policy.wrap
        )
        first = play(self.first_episodes, TEST_SEED)
        left = self.episodes - self.first_episodes
        if not left or first.mean() < self.level - MARGIN * abs(self.level):
            return float(first.mean()), len(first)
        seed = TEST_SEED + self.first_episodes
        rest = play(left, seed)
        return float((first.sum() + rest.sum()) / self.episodes), self.episodes


class BudgetSpent(Exception):
    """Raised by an environment of ``LearningCurve``, before a step beyond the end of the run."""


@dataclass
class LearningCurve:
    """Returns against real steps of one run, measured while it learns.

    Every environment that the agent learns in is wrapped by ``count``. The policy that would choose
    the next real step is evaluated, in environments of its own, when the steps of all of them have
    passed a point of the grid. Evaluations cost no real steps, and draw nothing from the random
    numbers of training, as long as the policy plays deterministically.

    Attributes:
        protocol: see there.
        env: that the evaluations are played in: an id or a function.
        policy: returns the current policy; None while there is none.
        name: of the run, for its progress bar.
        steps: real steps so far.
        points: real steps, mean return and number of episodes of each evaluation.
        seconds: of wall time that learning took, without evaluations; after ``close``.
    """

    protocol: Protocol
    env: EnvLike
    policy: Callable[[], Policy | None]
    name: str = "run"
    steps: int = 0
    points: list[tuple[int, float, int]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._grid = grid(self.protocol.every, self.protocol.budget)
        self._next = 0
        self._evaluating = 0.0
        self._began = time.perf_counter()
        self._bar = progress_bar(self.name, "step", self.protocol.budget, leave=False)

    def count(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        """Wrap an environment that the agent learns in."""
        return _Counted(env, self)

    def before_step(self) -> None:
        """Evaluate if it is time to.

        Raises:
            BudgetSpent: the run ends here.
        """
        if self._next < len(self._grid) and self.steps >= self._grid[self._next]:
            self.evaluate()
        self._bar.update(self.steps - self._bar.n)
        recent = self.points[-self.protocol.patience :]
        reached = [value >= self.protocol.level for _, value, _ in recent]
        if self.steps >= self.protocol.budget or sum(reached) == self.protocol.patience:
            raise BudgetSpent

    def evaluate(self) -> None:
        """Evaluate now, once for each number of steps."""
        while self._next < len(self._grid) and self.steps >= self._grid[self._next]:
            self._next += 1
        policy = self.policy()
        if policy is None or (self.points and self.points[-1][0] == self.steps):
            return
        began = time.perf_counter()
        value, episodes = self.protocol.evaluate(policy, self.env)
        self._evaluating += time.perf_counter() - began
        self.points.append((self.steps, value, episodes))
        self._bar.set_postfix_str(f"return {value:.4g}", refresh=False)

    def run(self, learn: Callable[[], object]) -> None:
        """Let the agent learn to the end of the run, and evaluate what it has learned by then."""
        try:
            learn()
        except BudgetSpent:
            pass
        else:
            self.evaluate()
        self.seconds = time.perf_counter() - self._began - self._evaluating
        self._bar.close()


class _Counted(gym.Wrapper[Any, Any, Any, Any]):
    """Counts its steps in a ``LearningCurve``."""

    def __init__(self, env: gym.Env[Any, Any], curve: LearningCurve) -> None:
        super().__init__(env)
        self.curve = curve

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self.curve.before_step()
        result = self.env.step(action)
        self.curve.steps += 1
        return result
