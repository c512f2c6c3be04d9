"""The settings of a run of an agent, all of which its folder records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import gymnasium as gym
from numpy.typing import NDArray
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents.adapter import adapt
from agents.evaluation import evaluate
from agents.lookahead import LookaheadVecWrapper
from agents.planners.refining import CemConfig
from agents.training.online_planning import ONLINE_CEM
from worldmodel.base import WorldModel
from worldmodel.common.config_checks import at_least, numbers_at_least

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN, "sac": SAC}
Method = Literal["auto", "imagination", "dyna", "planner", "lookahead", "real"]
STEPS = 30_000
"""Decisions of a run where nothing is said."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run.

    Attributes:
        env: Gymnasium id; ``MODULE:ID`` imports the module first.
        method: "auto": as ``agents.recipes`` has it for the environment, which decides on all but
            steps and seed; "imagination": PPO in ``ImaginedVecEnv``, without a real step; "dyna":
            on few real steps, in a world model that is refitted to them; "planner": plans in such a
            model, without a policy (``train_planner``); "lookahead": PPO on real observations with
            imagined jumps; "real": without a world model.
        algorithm: "ppo", "dqn" or "sac"; imagination and lookahead are for PPO, the planner is for
            none of them.
        model: checkpoint folder, shipped name or hub id of the world model; if None, Dyna and the
            planner begin with a fresh one.
        episodes: folder of recorded episodes, at whose steps imagined ones begin; None begins
            them at resets of the environment. Only with method="imagination".
        steps: decisions that the agent learns from: imagined ones with method="imagination", else
            real ones. None takes 30,000, with "auto" those of the recipe.
        hold: steps that an action is held.
        horizon: decisions of an imagined episode; None takes what fits the model's window. Plans
            have a horizon of their own.
        frame_stack: frames that the policy sees.
        num_envs: environments side by side; imagined ones with imagination and dyna.
        jumps: of lookahead, for each candidate action.
        depth: decisions that lookahead searches, in place of rendering frames of several jumps.
            Above 1, PPO in imagination looks ahead, too.
        window: steps that a fresh model looks across; with the planner as many as plans take, if
            that is more.
        fit_steps: training steps of a refit with dyna (the first has four times as many) or the
            planner; 0 never refits. None: 500 with dyna, what ``OnlineConfig`` says with the
            planner.
        fit_every: real decisions between refits; None: 1000 with dyna, what ``OnlineConfig`` says
            with the planner.
        imagined_steps: decisions that PPO imagines for each refit, with dyna.
        branches: that DQN and SAC with dyna imagine for each real decision; None takes 400 of
            vectors, and 4 of images.
        updates: gradient steps of DQN and SAC for each real decision.
        planner: settings of the planner, but for hold and seed, which are those of the run.
        size, pixels, grayscale: see ``agents.adapt``.
        seed: of everything random.
    """

    env: str
    method: Method = "imagination"
    algorithm: Literal["ppo", "dqn", "sac"] = "ppo"
    model: str | None = None
    episodes: str | None = None
    steps: int | None = None
    hold: int = 1
    horizon: int | None = None
    frame_stack: int = 1
    num_envs: int = 16
    jumps: int = 2
    depth: int = 1
    window: int = 20
    fit_steps: int | None = None
    fit_every: int | None = None
    imagined_steps: int = 20_000
    branches: int | None = None
    updates: int = 1
    planner: CemConfig = ONLINE_CEM
    size: int = 64
    pixels: bool = False
    grayscale: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        numbers_at_least(1, steps=self.decisions)
        numbers = "hold frame_stack num_envs jumps depth window imagined_steps updates"
        at_least(1, self, *numbers.split())
        at_least(0, self, "seed")
        for name, least in (("fit_steps", 0), ("fit_every", 1), ("branches", 1)):
            if getattr(self, name) is not None:
                at_least(least, self, name)
        if self.method not in get_args(Method):
            raise ValueError(f"method: expected {', '.join(get_args(Method))}, got {self.method!r}")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: expected ppo, dqn or sac, got {self.algorithm!r}")
        if self.method in ("imagination", "lookahead"):
            if self.algorithm != "ppo":
                raise ValueError(f"algorithm: {self.method} is for ppo, got {self.algorithm}")
            if self.model is None:
                raise ValueError(
                    f"model: {self.method} needs a trained world model; python -m worldmodel train "
                    "makes one, and --method dyna begins without"
                )
        self._check_planner()
        if self.method == "dyna" and self.model is None and self.fit_steps == 0:
            raise ValueError("fit_steps: a fresh model has to be fitted, got 0; or give a model")
        if self.depth > 1 and self.method not in ("imagination", "lookahead"):
            raise ValueError(
                f"depth: is of PPO with lookahead; expected 1 with method={self.method!r}, got "
                f"{self.depth}"
            )
        if self.episodes is not None and self.method != "imagination":
            raise ValueError(f"episodes: are for method='imagination', got {self.method!r}")

    @property
    def decisions(self) -> int:
        """``steps``, or how many there are where nothing is said."""
        return STEPS if self.steps is None else self.steps

    def _check_planner(self) -> None:
        """Raise ValueError for settings that the planner takes no notice of."""
        if self.planner.seed or self.planner.hold not in (1, self.hold):
            raise ValueError("planner: its seed and hold are those of the run; give --seed, --hold")
        if self.method != "planner":
            return
        if self.algorithm != "ppo" or self.frame_stack != 1 or self.horizon is not None:
            raise ValueError(
                "algorithm, frame_stack, horizon: the planner has no policy that learns, sees one "
                "frame, and its horizon is planner.horizon; leave them away"
            )
        if self.fit_steps == 0:
            raise ValueError("fit_steps: the planner's model has to be fitted, got 0")

    @property
    def planner_config(self) -> CemConfig:
        """Settings of the planner, with the run's hold and seed."""
        return replace(self.planner, hold=self.hold, seed=self.seed)

    def make_env(self) -> gym.Env[Any, Any]:
        """The real environment, without ``HoldAction``."""
        return adapt(self.env, self.size, self.pixels, self.grayscale)

    @property
    def looks_ahead(self) -> bool:
        """Whether the agent sees what its actions lead to."""
        return self.method == "lookahead" or self.depth > 1

    def wrap(self, model: WorldModel | None) -> Callable[[VecEnv], VecEnv] | None:
        """The ``wrap`` of ``evaluate``: a lookahead wrapper, or None."""
        if not self.looks_ahead or model is None:
            return None
        return partial(
            LookaheadVecWrapper, model=model, jumps=self.jumps if self.depth == 1 else 1,
            hold=self.hold, seed=self.seed, depth=self.depth, frames=self.depth == 1,
        )  # fmt: skip

    def play(self, agent: Any, model: WorldModel | None, episodes: int, seed: int) -> NDArray[Any]:
        """Returns of real episodes; see ``evaluate``."""
        return evaluate(
            agent, self.make_env, episodes, seed=seed, hold=self.hold,
            frame_stack=self.frame_stack, wrap=self.wrap(model), progress=True,
        )  # fmt: skip
