"""``python -m agents train | plan | enjoy``: agents that imagine, by command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from agents.adapt import adapt
from agents.imagination import Imagination
from agents.monitoring.comparison import play
from agents.planners import (
    Agent,
    Cem,
    CemConfig,
    Mppi,
    MppiConfig,
    Planner,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
    TreeSearch,
    TreeSearchConfig,
)
from agents.planners.base import Before
from agents.planners.base import Plan as Considered
from agents.training import run as runs
from agents.training.run_config import RunConfig
from agents.training.train import evaluate
from worldmodel import checkpoint
from worldmodel.common import cli
from worldmodel.common.config_checks import at_least
from worldmodel.common.video import write_video

PLANNERS: dict[str, tuple[Callable[..., Planner], type[Any]]] = {
    "random-shooting": (RandomShooting, RandomShootingConfig),
    "cem": (Cem, CemConfig),
    "mppi": (Mppi, MppiConfig),
    "tree-search": (TreeSearch, TreeSearchConfig),
}


@dataclass(frozen=True)
class Train(RunConfig):
    """Train an agent in imagination, with Dyna, with lookahead, or without a world model."""

    out: Path = Path("runs/agent")
    """Folder for the agent, its settings and TensorBoard's logs. A run that was stopped or killed
    goes on with the same command."""
    evaluate_every: int = 10_000
    """Decisions between real evaluations in TensorBoard; 0 for none."""
    eval_episodes: int = 20
    """Real episodes in the end, beside random play."""
    device: str = "cpu"
    num_threads: int = 1

    def run(self) -> None:
        """Train, save, play."""
        at_least(1, self, "eval_episodes")  # else found out when all is trained
        torch.set_num_threads(self.num_threads)
        own = {field.name for field in fields(RunConfig)}
        config = RunConfig(**{key: value for key, value in asdict(self).items() if key in own})
        agent = runs.train(
            config, self.out, self.device, self.num_threads, self.evaluate_every,
            progress=sys.stdout.isatty(),
        )  # fmt: skip
        model = None if config.model is None else checkpoint.load(config.model, self.device)
        returns = config.play(agent, model, self.eval_episodes, seed=10**6)
        random = RandomAgent(config.make_env().action_space, self.seed)
        floor = evaluate(random, config.make_env, self.eval_episodes, 10**6, hold=self.hold)
        print(f"real return, {self.eval_episodes} episodes: {_mean(returns)}")
        print(f"random play: {_mean(floor)}")
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
    """Of each decision (and each round of cem and mppi)."""
    worlds: int = 4
    horizon: int | None = None
    """Decisions of a plan; None takes what fits the model's window."""
    hold: int = 1
    """Steps that an action is held."""
    ahead: int = 1
    """Decisions that the window always keeps room for."""
    discount: float = 1.0
    risk: float = 1.0
    """Share of the worlds, the worst for a plan, that its score is the mean over."""
    episodes: int = 20
    video: Path | None = None
    """GIF or MP4 file for the first episode."""
    pixels: bool = False
    """See rendered frames instead of the environment's own observations."""
    seed: int = 0
    device: str = "cpu"
    num_threads: int = 1

    def run(self) -> None:
        """Play, beside random play."""
        torch.set_num_threads(self.num_threads)
        at_least(1, self, "hold")
        model = checkpoint.load(self.checkpoint, self.device)
        make_planner, settings = PLANNERS[self.planner]
        horizon = max(1, model.spec.window // self.hold) if self.horizon is None else self.horizon
        config = settings(
            plans=self.plans, worlds=self.worlds, horizon=horizon, hold=self.hold,
            ahead=self.ahead, discount=self.discount, risk=self.risk, seed=self.seed,
        )  # fmt: skip
        planner = make_planner(model, config)
        taken = _timed(planner)
        size = model.spec.observation[-1] if model.spec.is_image else 64
        grey = model.spec.is_image and model.spec.observation[0] == 1
        make_env = partial(adapt, self.env, size, self.pixels, grayscale=grey)
        returns = evaluate(planner, make_env, self.episodes, self.seed, self.hold, progress=True)
        random = RandomAgent(make_env().action_space, self.seed)
        floor = evaluate(random, make_env, self.episodes, self.seed, self.hold, progress=True)
        print(f"real return, {self.episodes} episodes: {_mean(returns)}")
        print(f"random play: {_mean(floor)}")
        rows, seconds = max(rows for rows, _ in taken), np.median([spent for _, spent in taken])
        print(f"a decision for {rows} agents at once took {seconds:.3g} s")
        if self.video is not None:
            _film(make_env, planner, self.seed, self.hold, 1, self.video)


@dataclass(frozen=True)
class Enjoy:
    """Watch an agent that ``train`` made, in its real environment. Load only what you trust: SB3's
    zip can run code.
    """

    folder: tyro.conf.Positional[Path]
    """What ``train`` called --out."""
    episodes: int = 10
    video: Path | None = None
    """GIF or MP4 file for the first episode; None for enjoy.gif in the folder, if there are
    pictures."""
    seed: int = 0
    num_threads: int = 1

    def run(self) -> None:
        """Play, and film the first episode."""
        torch.set_num_threads(self.num_threads)
        agent, config = runs.load(self.folder)
        if config.how == "lookahead" and self.video is not None:
            raise ValueError("video: agents with lookahead cannot be filmed yet")
        model = None if config.how != "lookahead" else checkpoint.load(str(config.model))
        returns = config.play(agent, model, self.episodes, self.seed)
        print(f"real return, {self.episodes} episodes: {_mean(returns)}")
        path = self.folder / "enjoy.gif" if self.video is None else self.video
        if config.how != "lookahead":
            _film(config.make_env, agent, self.seed, config.hold, config.frame_stack, path)


def _timed(planner: Planner) -> list[tuple[int, float]]:
    """Rows and seconds of each decision that the planner makes from now on."""
    taken, plan = list[tuple[int, float]](), planner.plan

    def timed(imagination: Imagination, before: Before = ()) -> Considered:
        began = time.perf_counter()
        found = plan(imagination, before)
        taken.append((len(found.best), time.perf_counter() - began))
        return found

    planner.plan = timed  # type: ignore[method-assign]
    return taken


def _film(
    make_env: Callable[[], gym.Env[Any, Any]],
    agent: Agent,
    seed: int,
    hold: int,
    frame_stack: int,
    path: Path,
) -> None:
    """Film an episode of what the agent sees; vectors show no picture."""
    env = make_env()
    if env.observation_space.shape is None or len(env.observation_space.shape) != 3:
        print("no film: the agent sees vectors (--pixels shows it rendered frames)")
        return
    frames, _, _ = play(env, agent, seed, 1000, hold, frame_stack)
    large = frames.repeat(4, 1).repeat(4, 2).repeat(3 // frames.shape[-1], -1)
    print(f"film: {write_video(path, large, fps=8)}")


def _mean(returns: NDArray[np.float64]) -> str:
    """The mean, with its standard error where there is one."""
    if len(returns) < 2:
        return f"{returns.mean():.4g}"
    return f"{returns.mean():.4g} +- {returns.std(ddof=1) / np.sqrt(len(returns)):.2g}"


VERBS: dict[str, Any] = {"train": Train, "plan": Plan, "enjoy": Enjoy}


def main() -> None:
    """Run the verb that the command line names."""
    cli.main("agents", VERBS, "Train, plan and watch agents that imagine.")


if __name__ == "__main__":
    main()
