"""How many real steps does imagination save? PPO with it and without, the same real episodes.

Without: PPO learns from real steps, and is played in between. With: a world model is trained on
some random real steps, PPO learns in it alone, and is played, and so is a planner; each number of
real steps is a fresh run. The answer is the ratio of the real steps that are needed to come 80% of
the way from random play to where PPO without imagination ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor

import agents
import worldmodel
from agents.monitoring.progress import ProgressBar
from agents.training.imagined_ppo import make_ppo
from evaluation.metrics.statistics import Interval
from evaluation.runner.measurement import Measurement, Row, Scattered
from evaluation.runner.partial_results import PartialResults
from worldmodel import Spec, collect, fit

LEVEL = 0.8
"""Of the way from random play to the final return without imagination."""
RESAMPLED = 2000
TEST_SEED = 10**6
"""Real episodes that count begin here; collecting and training use others."""

TUNED: dict[str, dict[str, Any]] = {  # of RL Baselines3 Zoo, for PPO on real steps
    "CartPole-v1": {
        "num_envs": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98,
        "n_epochs": 20, "ent_coef": 0.0, "learning_rate": lambda left: 1e-3 * left,
        "clip_range": lambda left: 0.2 * left,
    },
}  # fmt: skip

FREE, PPO, PLANNER = "PPO", "PPO in imagination", "planner"

Returns = NDArray[np.float64]
Curve = list[tuple[int, Returns]]
"""Real steps, and returns (episodes,) then."""


@dataclass(frozen=True)
class Efficiency(Measurement, Scattered):
    """Real steps that imagination saves: PPO with it and without, to 80% of the latter's return."""

    name = "efficiency"
    columns = ("agent", "of", "seed", "real_steps", "return", "value", "low", "high")
    env: str = "CartPole-v1"
    """Gymnasium id."""
    budget: int = 60_000
    """Real steps without imagination."""
    sizes: tuple[int, ...] = (1000, 2500, 5000, 10_000)
    """Real steps that world models are trained on."""
    seeds: int = 3
    """Runs of each."""
    window: int = 20
    """Steps that the world model looks across."""
    fit_steps: int = 3000
    """Of the world model's training."""
    imagined_steps: int = 60_000
    """Decisions that PPO learns from in imagination."""
    horizon: int | None = None
    """Decisions of an imagined episode; None takes what fits the window."""
    hold: int = 1
    """Steps that an action is held."""
    frame_stack: int = 1
    """Frames that the policies see."""
    size: int = 32
    """Of frames, where there are some."""
    episodes: int = 50
    """Real ones, of each evaluation."""
    points: int = 20
    """Evaluations of a run without imagination."""
    plans: int = 256
    """Of each of the planner's decisions."""
    markov: bool = True
    """Whether one observation holds all that matters; the planner then forgets those before, and
    plans as far as the window at every decision."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``agent, seed, real_steps, return, episodes`` of all runs; and for each way to act
        in imagination one of ``agent`` "ratio" with ``of``, ``value``, ``low``, ``high`` (95%, over
        runs and episodes).
        """
        random = self.play(agents.RandomAgent(self.make_env().action_space), stacked=False)
        seeds = range(self.seeds)
        parts = [(seed, size) for seed in seeds for size in (None, *self.sizes)]
        names = {
            f"seed {seed}, {f'a model of {size} steps' if size else FREE}": (seed, size)
            for seed, size in parts
        }
        values = partial_results.each(self._run_one, names, self.name, "run", **self.cluster())
        results = dict(zip(parts, values, strict=True))
        runs = {FREE: [_curve(results[seed, None][FREE]) for seed in seeds]}
        for name in (PPO, PLANNER):
            points = [[results[seed, size][name] for size in self.sizes] for seed in seeds]
            runs[name] = [_curve(of_seed) for of_seed in points]
        rows: list[Row] = [{"agent": "random play", "return": float(random.mean())}]
        for name, curves in runs.items():
            for seed, curve in enumerate(curves):
                for steps, returns in curve:
                    row = {"agent": name, "seed": seed, "real_steps": steps}
                    rows.append({**row, "return": float(returns.mean()), "episodes": len(returns)})
        for name in (PPO, PLANNER):
            ratio = saved(random, runs[FREE], runs[name])
            rows.append({"agent": "ratio", "of": name, "level": LEVEL, **ratio.columns()})
        return rows

    def make_env(self) -> Any:
        """The real environment."""
        return agents.adapt(self.env, self.size)

    def play(self, agent: Any, stacked: bool = True) -> Returns:
        """Returns (episodes,), always of the same real episodes."""
        return agents.evaluate(
            agent, self.make_env, self.episodes, TEST_SEED, self.hold,
            self.frame_stack if stacked else 1,
        )  # fmt: skip

    def spec(self) -> Spec:
        """Of the world model."""
        env = self.make_env()
        return Spec.from_spaces(env.observation_space, env.action_space, self.window)

    def _run_one(self, part: tuple[int, int | None]) -> dict[str, Any]:
        """The curve without imagination, or a point of each way to act with it."""
        seed, size = part
        if size is None:
            return {FREE: self._without_imagination(seed)}
        steps, returns = self._with_imagination(seed, size)
        return {name: (steps, values) for name, values in returns.items()}

    def _without_imagination(self, seed: int) -> Curve:
        """One run of PPO on real steps."""
        settings = dict(TUNED.get(self.env, {"num_envs": 8, "n_steps": 64}))
        counted = [
            agents.RecordEpisodes(self.make_env(), 1) for _ in range(settings.pop("num_envs"))
        ]
        makers = [partial(agents.HoldAction, env, self.hold) for env in counted]
        venv: VecEnv = VecMonitor(DummyVecEnv([*makers]))
        if self.frame_stack > 1:
            venv = VecFrameStack(venv, self.frame_stack)
        decisions = self.budget // self.hold
        measured = _Measured(
            counted,
            self.make_env,
            max(1, decisions // self.points),
            self.episodes,
            TEST_SEED,
            hold=self.hold,
            frame_stack=self.frame_stack,
        )
        agent = make_ppo(self.spec(), venv, seed, None, **settings)
        agent.learn(decisions, callback=[measured, ProgressBar()])
        return measured.curve

    def _with_imagination(self, seed: int, size: int) -> tuple[int, dict[str, Returns]]:
        """PPO that learned in a world model of about ``size`` random real steps, and a planner.

        Returns:
            how many real steps were recorded, and the returns of both.
        """
        episodes = collect(self.make_env(), steps=size, hold=self.hold, seed=seed * 10**5)
        model = worldmodel.make("jump", self.spec(), seed=seed)
        fit(model, episodes.windows(self.window, 32, seed), self.fit_steps, seed=seed)
        agent = agents.train_in_imagination(
            model, episodes, self.imagined_steps, hold=self.hold, horizon=self.horizon,
            frame_stack=self.frame_stack, seed=seed, progress_bar=True,
        )  # fmt: skip
        horizon = self.window // self.hold
        ahead = horizon if self.markov else 1
        config = agents.RandomShootingConfig(
            self.plans, 2, horizon, hold=self.hold, ahead=ahead, seed=seed
        )
        planner = agents.RandomShooting(model, config)
        returns = {PPO: self.play(agent), PLANNER: self.play(planner, stacked=False)}
        return episodes.steps, returns


class _Measured(agents.RealReturns):
    """Counts the real steps of the environments by the time of each evaluation."""

    def __init__(self, counted: Sequence[agents.RecordEpisodes], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counted = counted
        self.curve: Curve = []

    def _measure(self) -> None:
        super()._measure()
        self.curve.append((sum(env.total for env in self.counted), self.history[-1][1]))


def _curve(points: Iterable[tuple[int, Sequence[float]]]) -> Curve:
    """As it was before it went through JSON."""
    return [(steps, np.array(returns)) for steps, returns in points]


def saved(
    random: Returns, without: Sequence[Curve], with_it: Sequence[Curve], seed: int = 0
) -> Interval:
    """Real steps without imagination, over those with it, to reach the level.

    Curves are means over seeds, linear between points. A curve that begins above the level counts
    with its first point; with imagination that never reaches it, the ratio is 0. Where nothing is
    learned without imagination there is no level, and the ratio is NaN. The interval is of a
    bootstrap that resamples runs, and episodes within them.

    Args:
        random: returns (episodes,) of random play.
        without, with_it: one curve for each seed.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    ratios = [
        _ratio(_resampled(rng, random), _mean(rng, without), _mean(rng, with_it))
        for _ in range(RESAMPLED)
    ]
    value = _ratio(float(random.mean()), _mean(None, without), _mean(None, with_it))
    if np.isnan(value):
        return Interval(value, value, value, len(without))
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(without))


Means = tuple[list[float], list[float]]


def _ratio(floor: float, without: Means, with_it: Means) -> float:
    level = floor + LEVEL * (without[1][-1] - floor)
    needed = _steps_to(with_it, level)
    if level <= floor:
        return float(np.nan)
    return 0.0 if needed == np.inf else _steps_to(without, level) / needed


def _steps_to(curve: Means, level: float) -> float:
    """Real steps at which the curve first reaches the level."""
    steps, returns = curve
    for i, value in enumerate(returns):
        if value >= level:
            if i == 0:
                return float(steps[0])
            share = (level - returns[i - 1]) / (value - returns[i - 1])
            return steps[i - 1] + share * (steps[i] - steps[i - 1])
    return float(np.inf)


def _mean(random: np.random.Generator | None, runs: Sequence[Curve]) -> Means:
    """The mean curve of all runs, point by point; with ``random``, of a bootstrap sample."""
    count = len(runs)
    chosen = range(count) if random is None else random.integers(count, size=count)
    steps = [[point for point, _ in runs[i]] for i in chosen]
    curves = [
        [
            float(values.mean()) if random is None else _resampled(random, values)
            for _, values in runs[i]
        ]
        for i in chosen
    ]
    return np.mean(steps, 0).tolist(), np.mean(curves, 0).tolist()


def _resampled(random: np.random.Generator, returns: Returns) -> float:
    return float(random.choice(returns, len(returns)).mean())
