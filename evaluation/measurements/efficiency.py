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

import worldmodel
from agents import (
    HoldAction,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    RealReturns,
    RecordEpisodes,
    adapt,
    evaluate,
    train_in_imagination,
)
from agents.training.train import make_ppo
from evaluation.metrics.statistics import Interval
from evaluation.runner.partial_results import Ledger
from evaluation.runner.progress import on_terminal
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
Row = dict[str, Any]
Curve = list[tuple[int, Returns]]
"""Real steps, and returns (episodes,) then."""


@dataclass(frozen=True)
class Protocol:
    """What both sides share.

    Attributes:
        env: Gymnasium id.
        budget: real steps without imagination.
        sizes: real steps that world models are trained on.
        seeds: how many runs of each.
        window: steps that the model looks across.
        fit_steps: of the world model's training.
        imagined_steps: decisions that PPO learns from in imagination.
        horizon: decisions of an imagined episode; None takes what fits the window.
        hold: steps that an action is held.
        frame_stack: frames that the policies see.
        size: of frames, where there are some.
        episodes: real ones, of each evaluation.
        points: evaluations of a run without imagination.
        plans: of each of the planner's decisions.
        markov: whether an observation shows all that counts; the planner then forgets what was
            before, and looks as far as the window at every decision.
    """

    env: str = "CartPole-v1"
    budget: int = 60_000
    sizes: tuple[int, ...] = (1000, 2500, 5000, 10_000)
    seeds: int = 3
    window: int = 20
    fit_steps: int = 3000
    imagined_steps: int = 60_000
    horizon: int | None = None
    hold: int = 1
    frame_stack: int = 1
    size: int = 32
    episodes: int = 50
    points: int = 20
    plans: int = 256
    markov: bool = True

    def make_env(self) -> Any:
        """The real environment."""
        return adapt(self.env, self.size)

    def play(self, agent: Any, stacked: bool = True) -> Returns:
        """Returns (episodes,), always of the same real episodes."""
        return evaluate(
            agent, self.make_env, self.episodes, TEST_SEED, self.hold,
            self.frame_stack if stacked else 1,
        )  # fmt: skip


def efficiency(
    protocol: Protocol,
    ledger: Ledger | None = None,
    workers: int = 0,
    address: str | None = None,
) -> list[Row]:
    """Rows ``agent, seed, real_steps, return, episodes`` of all runs, and for each way of acting in
    imagination one of ``agent`` "ratio" with ``of``, ``value``, ``low``, ``high`` (95%, over runs
    and episodes).

    Args:
        protocol: what is run.
        ledger: keeps what is done, run by run.
        workers, address: processes that run, see ``common.cluster.scatter``; rows are the same.
    """
    random = protocol.play(RandomAgent(protocol.make_env().action_space), stacked=False)
    seeds = range(protocol.seeds)
    parts: dict[str, tuple[int, int | None]] = {_part(seed, None): (seed, None) for seed in seeds}
    parts |= {_part(seed, size): (seed, size) for seed in seeds for size in protocol.sizes}
    done = (ledger or Ledger()).each(
        partial(_one_run, protocol), parts, "efficiency", "run", workers, address
    )
    found = dict(zip(parts, done, strict=True))
    runs: dict[str, list[Curve]] = {
        name: [_curve(found[_part(seed, None)][name]) for seed in seeds]
        if name == FREE
        else [_curve([found[_part(seed, size)][name] for size in protocol.sizes]) for seed in seeds]
        for name in (FREE, PPO, PLANNER)
    }
    rows: list[Row] = [{"agent": "random play", "return": float(random.mean())}]
    for name, curves in runs.items():
        for seed, curve in enumerate(curves):
            for steps, returns in curve:
                row = {"agent": name, "seed": seed, "real_steps": steps}
                rows.append({**row, "return": float(returns.mean()), "episodes": len(returns)})
    for name in (PPO, PLANNER):
        ratio = saved(random, runs[FREE], runs[name])._asdict()
        rows.append({"agent": "ratio", "of": name, "level": LEVEL, **ratio})
    return rows


def _part(seed: int, size: int | None) -> str:
    """The name of a run: of a model of so many real steps, or without one."""
    return f"seed {seed}, {FREE if size is None else f'a model of {size} steps'}"


def _one_run(protocol: Protocol, part: tuple[int, int | None]) -> dict[str, Any]:
    """Its curve without imagination, or a point of each way of acting with it."""
    seed, size = part
    if size is None:
        return {FREE: model_free(protocol, seed)}
    steps, returns = in_imagination(protocol, size, seed)
    return {name: (steps, got) for name, got in returns.items()}


def _curve(points: Iterable[tuple[int, Sequence[float]]]) -> Curve:
    """As it was before it went through JSON."""
    return [(steps, np.array(returns)) for steps, returns in points]


def model_free(protocol: Protocol, seed: int) -> Curve:
    """One run of PPO on real steps."""
    settings = dict(TUNED.get(protocol.env, {"num_envs": 8, "n_steps": 64}))
    counted = [RecordEpisodes(protocol.make_env(), 1) for _ in range(settings.pop("num_envs"))]
    makers = [partial(HoldAction, env, protocol.hold) for env in counted]
    venv: VecEnv = VecMonitor(DummyVecEnv([*makers]))
    if protocol.frame_stack > 1:
        venv = VecFrameStack(venv, protocol.frame_stack)
    decisions = protocol.budget // protocol.hold
    measured = _Measured(
        counted,
        protocol.make_env,
        max(1, decisions // protocol.points),
        protocol.episodes,
        TEST_SEED,
        hold=protocol.hold,
        frame_stack=protocol.frame_stack,
    )
    agent = make_ppo(_spec(protocol), venv, seed, None, **settings)
    agent.learn(decisions, callback=measured, progress_bar=on_terminal())
    return measured.curve


class _Measured(RealReturns):
    """Counts what the environments did by then."""

    def __init__(self, counted: Sequence[RecordEpisodes], *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.counted = counted
        self.curve: Curve = []

    def _measure(self) -> None:
        super()._measure()
        self.curve.append((sum(env.total for env in self.counted), self.history[-1][1]))


def in_imagination(protocol: Protocol, size: int, seed: int) -> tuple[int, dict[str, Returns]]:
    """PPO that learned in a world model of about ``size`` random real steps, and a planner in it.

    Returns:
        how many steps it were, and the returns of both.
    """
    episodes = collect(protocol.make_env(), steps=size, hold=protocol.hold, seed=seed * 10**5)
    model = worldmodel.make("jump", _spec(protocol), seed=seed)
    source = episodes.windows(protocol.window, 32, seed)
    fit(model, source, protocol.fit_steps, seed=seed)
    agent = train_in_imagination(
        model, episodes, protocol.imagined_steps, hold=protocol.hold, horizon=protocol.horizon,
        frame_stack=protocol.frame_stack, seed=seed, progress_bar=on_terminal(),
    )  # fmt: skip
    horizon = protocol.window // protocol.hold
    ahead = horizon if protocol.markov else 1
    config = RandomShootingConfig(
        protocol.plans, 2, horizon, hold=protocol.hold, ahead=ahead, seed=seed
    )
    planner = RandomShooting(model, config)
    returns = {PPO: protocol.play(agent), PLANNER: protocol.play(planner, stacked=False)}
    return episodes.steps, returns


def saved(
    random: Returns,
    without: Sequence[Curve],
    with_it: Sequence[Curve],
    seed: int = 0,
) -> Interval:
    """Real steps without imagination, over those with it, to reach the level.

    Curves are means over seeds, linear between points. A curve that begins above the level counts
    with its first point; with imagination that never reaches it, the ratio is 0. Where nothing is
    learned without imagination there is no level, and the ratio is NaN. The interval is of a
    bootstrap that draws runs, and episodes within them, anew.

    Args:
        random: returns (episodes,) of random play.
        without, with_it: one curve for each seed.
        seed: of the bootstrap.
    """
    drawn = np.random.default_rng(seed)
    ratios = [
        _ratio(_again(drawn, random), _mean(drawn, without), _mean(drawn, with_it))
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
    """The mean curve of all runs, point by point, or of as many drawn with their episodes."""
    count = len(runs)
    chosen = range(count) if random is None else random.integers(count, size=count)
    steps = [[point for point, _ in runs[i]] for i in chosen]
    curves = [
        [float(seen.mean()) if random is None else _again(random, seen) for _, seen in runs[i]]
        for i in chosen
    ]
    return np.mean(steps, 0).tolist(), np.mean(curves, 0).tolist()


def _again(random: np.random.Generator, returns: Returns) -> float:
    return float(random.choice(returns, len(returns)).mean())


def _spec(protocol: Protocol) -> Spec:
    env = protocol.make_env()
    return Spec.from_spaces(env.observation_space, env.action_space, protocol.window)
