"""Verbs of ``python -m agents``: train agents that imagine, plan, and watch them play."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from agents.adapter import adapt
from agents.evaluation import evaluate, play
from agents.imagination import Imagination
from agents.planners import PLANNERS
from agents.planners.base import Agent, Before, Planner
from agents.planners.base import Plan as ScoredPlans
from agents.random_agent import RandomAgent
from agents.recipes.recipe import recipe_for
from agents.training import run as runs
from agents.training.run_config import RunConfig
from worldmodel import checkpoint
from worldmodel.common.config_checks import at_least
from worldmodel.common.video import write_video
from worldmodel.data.make_env import EnvLike, open_env


@dataclass(frozen=True)
class Train(RunConfig):
    """Train an agent by a recipe (--method auto), in imagination, with Dyna, by planning online,
    with lookahead, or without a world model.
    """

    out: Path = Path("runs/agent")
    """Folder for the agent, its settings and TensorBoard's logs. The same command resumes a run
    that was stopped or killed."""
    evaluate_every: int = 10_000
    """Decisions between real evaluations in TensorBoard; 0 for none."""
    eval_episodes: int = 20
    """Real episodes in the end, for the agent and for random play."""
    device: str = "cpu"
    num_threads: int = 1

    def run(self) -> None:
        """Train, save, play."""
        at_least(1, self, "eval_episodes")  # before anything is trained
        torch.set_num_threads(self.num_threads)
        config = RunConfig(**{field.name: getattr(self, field.name) for field in fields(RunConfig)})
        if config.method == "auto":
            config = runs.resolved(config)
            print(recipe_for(config.make_env).describe(self.env, config.decisions * config.hold))
        agent = runs.train(
            config, self.out, self.device, self.num_threads, self.evaluate_every,
            progress=True,
        )  # fmt: skip
        model = None if config.model is None else checkpoint.load(config.model, self.device)
        returns = config.play(agent, model, self.eval_episodes, seed=10**6)
        _print_returns(returns, config.make_env, self.seed, 10**6, self.hold)
        print(f"agent: {self.out}\nwatch it: python -m agents enjoy {self.out}")
        print(f"curves and videos: tensorboard --logdir {self.out}")


@dataclass(frozen=True)
class Plan:
    """Plan with a world model in a real environment; nothing is trained."""

    checkpoint: tyro.conf.Positional[str]
    """Folder, shipped name or hub id."""
    env: str
    """Gymnasium id; MODULE:ID imports the module first."""
    planner: Literal["random-shooting", "cem", "mppi", "tree-search"] = "random-shooting"
    plans: int = 256
    """For each decision (and each iteration of cem and mppi)."""
    worlds: int = 4
    horizon: int | None = None
    """Decisions of a plan; None takes what fits the model's window."""
    hold: int = 1
    """Steps that an action is held."""
    ahead: int = 1
    """Decisions for which the model's window always keeps room."""
    discount: float = 1.0
    risk: float = 1.0
    """Share of the worlds, the worst for a plan, that its score is the mean over."""
    episodes: int = 20
    video: Path | None = None
    """GIF or MP4 file for the first episode."""
    pixels: bool = False
    """Observe rendered frames instead of the environment's own observations."""
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1

    def run(self) -> None:
        """Play, and compare with random play."""
        torch.set_num_threads(self.num_threads)
        at_least(1, self, "hold")
        model = checkpoint.load(self.checkpoint, self.device)
        kind = PLANNERS[self.planner]
        horizon = max(1, model.spec.window // self.hold) if self.horizon is None else self.horizon
        config = kind.config_type(
            plans=self.plans, worlds=self.worlds, horizon=horizon, hold=self.hold,
            ahead=self.ahead, discount=self.discount, risk=self.risk, seed=self.seed,
        )  # fmt: skip
        planner = kind(model, config)
        timings = _timed(planner)
        size = model.spec.observation[-1] if model.spec.is_image else 64
        if model.spec.image_part is not None:
            size = model.spec.image_part.shape[0]
        grey = model.spec.is_image and model.spec.observation[0] == 1
        make_env = partial(adapt, self.env, size, self.pixels, grayscale=grey)
        returns = evaluate(planner, make_env, self.episodes, self.seed, self.hold, progress=True)
        _print_returns(returns, make_env, self.seed, self.seed, self.hold)
        rows, seconds = max(timings)[0], np.median([spent for _, spent in timings])
        print(f"a decision for {rows} agents at once took {seconds:.3g} s")
        if self.video is not None:
            _write_video(make_env, planner, self.seed, self.hold, 1, self.video)


@dataclass(frozen=True)
class Enjoy:
    """Watch an agent that ``train`` made in its real environment. Load only what you trust: SB3's
    zip can run code.
    """

    folder: tyro.conf.Positional[Path]
    """The --out of ``train``."""
    episodes: int = 10
    video: Path | None = None
    """GIF or MP4 file for the first episode; None for enjoy.gif in the folder, if observations are
    images."""
    seed: int = 0
    num_threads: int = 1

    def run(self) -> None:
        """Play, and write a video of the first episode."""
        torch.set_num_threads(self.num_threads)
        agent, config = runs.load(self.folder)
        model = checkpoint.load(str(config.model)) if config.looks_ahead else None
        returns = config.play(agent, model, self.episodes, self.seed)
        print(f"real return, {self.episodes} episodes: {_mean(returns)}")
        path = self.folder / "enjoy.gif" if self.video is None else self.video
        _write_video(
            config.make_env, agent, self.seed, config.hold, config.frame_stack, path,
            config.wrap(model),
        )  # fmt: skip


def _timed(planner: Planner) -> list[tuple[int, float]]:
    """A list to which the planner adds the rows and seconds of each decision from now on."""
    timings, plan = list[tuple[int, float]](), planner.plan

    def timed(
        imagination: Imagination, before: Before = (), masks: Tensor | None = None
    ) -> ScoredPlans:
        began = time.perf_counter()
        result = plan(imagination, before, masks)
        timings.append((len(result.best), time.perf_counter() - began))
        return result

    planner.plan = timed  # type: ignore[method-assign]
    return timings


def _write_video(
    make_env: EnvLike,
    agent: Agent,
    seed: int,
    hold: int,
    frame_stack: int,
    path: Path,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
) -> None:
    """Write a video of the agent's observations in an episode, if they are images."""
    with open_env(make_env) as env:
        shape = env.observation_space.shape
        if shape is None or len(shape) != 3:
            print("no video: observations are vectors (--pixels gives rendered frames)")
            return
        frames, _, _ = play(env, agent, seed, 1000, hold, frame_stack, wrap=wrap)
    large = frames.repeat(4, 1).repeat(4, 2).repeat(3 // frames.shape[-1], -1)
    print(f"video: {write_video(path, large, fps=8)}")


def _print_returns(
    returns: NDArray[np.float64], env: EnvLike, seed: int, first: int, hold: int
) -> None:
    """Print the returns of an agent, and those of random play in as many episodes."""
    with open_env(env) as made:
        random = RandomAgent(made.action_space, seed)
    floor = evaluate(random, env, len(returns), first, hold, progress=True)
    print(f"real return, {len(returns)} episodes: {_mean(returns)}")
    print(f"random play: {_mean(floor)}")


def _mean(returns: NDArray[np.float64]) -> str:
    """The mean, with its standard error where there is one."""
    if len(returns) < 2:
        return f"{returns.mean():.4g}"
    return f"{returns.mean():.4g} +- {returns.std(ddof=1) / np.sqrt(len(returns)):.2g}"
