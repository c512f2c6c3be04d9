"""Returns in real environments, on a scale from random play (0) to the oracle (1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import agents
import worldmodel
from agents.actions import count_choices, draw_actions
from envs import play, simulator_of
from evaluation.metrics.statistics import median, normalised_return
from evaluation.runner.measurement import OfCheckpoint, Row, Scattered
from evaluation.runner.partial_results import PartialResults
from evaluation.runner.trained_agents import (
    IMAGINED,
    Contestant,
    Recipe,
    decisions,
    imagined_agents,
    trained_agents,
)
from worldmodel import ActionSpec, WorldModel
from worldmodel.common.config_checks import numbers_at_least

RANDOM_PLAYS = 64
"""Random plays of each episode's scene; their mean is that episode's 0."""
BLOCK = 100
"""Episodes that one worker plays in a row; whatever the number of workers, so that they agree."""


class Task(NamedTuple):
    """Work for one process: a contestant, or how to make it, and blocks of episodes' seeds."""

    name: str
    contestant: Contestant | Recipe
    blocks: Sequence[range]


@dataclass(frozen=True)
class Control(OfCheckpoint, Scattered):
    """Real returns of planners and agents, normalised to random play 0 and the oracle 1."""

    name = "control"
    columns = ("agent", "real_steps", "return", "normalised_return", "low", "high", "episodes")
    episodes: int = 200
    """Real test episodes, the same for all; at least 2."""
    plans: int = 256
    """In all, for each decision of each planner. Tree search plays where these are enough for
    every action at each of its levels."""
    worlds: int = 4
    hold: int = 5
    """Steps for which each action is held."""
    horizon: int | None = None
    """Decisions of a plan; None for as many as fit the model's window."""
    real_steps: int = 0
    """Agents that learn from as many real steps play, too; 0 for planners only."""
    planners: bool = True
    """Whether planners play, or only random play and agents that learn."""
    imagined_steps: int = 0
    """Decisions that PPO learns from in imagination, before it plays, too; 0 leaves it out."""
    depth: int = 1
    """Decisions that this PPO looks ahead by."""
    runs: int = 5
    """Of this PPO, with seeds from 0 on, of which a row has the median."""
    seed: int = 0
    """Of the first episode; agents are seeded by the first episode of each block."""
    device: str = "cpu"

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``play``, of all planners and, with ``real_steps``, of agents that learn.

        With ``imagined_steps``, a row for each run of PPO in imagination, and one of their median:
        its ``low`` and ``high`` are over runs, and ``runs`` says how many there are.
        """
        numbers_at_least(1, depth=self.depth, runs=self.runs)
        numbers_at_least(0, imagined_steps=self.imagined_steps)
        if self.depth > 1 and not self.imagined_steps:
            raise ValueError(
                f"depth: is of PPO in imagination, got {self.depth} without it; give imagined_steps"
            )
        model = worldmodel.load(self.checkpoint, self.device)
        random = agents.RandomAgent(model.spec.action.to_space(), self.seed)
        contestants: dict[str, Contestant | Recipe] = {"random": Contestant(random)}
        if self.planners:
            contestants |= self._planners(model)
        if self.real_steps:
            contestants |= trained_agents(
                self.checkpoint, self.environment(), self.real_steps, hold=self.hold, seed=self.seed
            )
        imagined = {}
        if self.imagined_steps:
            imagined = imagined_agents(
                self.checkpoint, self.environment(), self.imagined_steps, self.depth, self.hold,
                range(self.runs),
            )  # fmt: skip
        every = {**contestants, **imagined}
        rows = self.play(every, model.spec.observation[1], partial_results)
        runs = [row for row in rows if row["agent"] in imagined]
        return rows + ([_median_row(runs)] if runs else [])

    def _planners(self, model: WorldModel) -> dict[str, Contestant]:
        horizon = decisions(model, self.hold) if self.horizon is None else self.horizon
        shared: dict[str, Any] = {
            "worlds": self.worlds, "horizon": horizon, "hold": self.hold, "seed": self.seed,
        }  # fmt: skip
        rounds = 4  # of refinement: each planner draws as many plans in all
        refined = {
            **shared,
            "plans": max(1, self.plans // rounds),
            "iterations": rounds,
            "choose": "best",
        }
        plans = agents.RandomShootingConfig(plans=self.plans, **shared)
        planners = {
            "random shooting": Contestant(agents.RandomShooting(model, plans)),
            "CEM": Contestant(agents.Cem(model, agents.CemConfig(**refined))),
            "MPPI": Contestant(agents.Mppi(model, agents.MppiConfig(**refined))),
        }
        choices = count_choices(model.spec.action)
        if choices is not None and self.plans >= choices * horizon:
            tree = agents.TreeSearchConfig(plans=self.plans, **shared)
            planners["tree search"] = Contestant(agents.TreeSearch(model, tree))
        return planners

    def play(
        self,
        contestants: Mapping[str, Contestant | Recipe],
        size: int = 32,
        partial_results: PartialResults | None = None,
    ) -> list[Row]:
        """Rows ``agent, env, real_steps, return, normalised_return, low, high, episodes``.

        Intervals are 95%, over episodes. Rows do not depend on the number of workers: each takes
        one contestant and a block of episodes, or trains one and plays all.

        Args:
            contestants: by name; or functions that make them, where that takes training.
            size: of frames.
            partial_results: holds the blocks that are done.

        Raises:
            ValueError: no environment is known; fewer than 2 episodes, of which there is no
                interval; or ``hold`` is below 1.
        """
        episodes, seed = self.episodes, self.seed
        if episodes < 2:  # before anything is trained or played
            raise ValueError(f"episodes: expected at least 2, for an interval, got {episodes}")
        env = self.environment()
        scale = reference(env, episodes, self.hold, seed)
        starts = range(0, episodes, BLOCK)
        blocks = [range(seed + i, seed + min(i + BLOCK, episodes)) for i in starts]
        tasks = {
            f"{name}, episodes {part[0].start} to {part[-1].stop - 1}": Task(name, one, part)
            for name, one in contestants.items()
            for part in ([[block] for block in blocks] if isinstance(one, Contestant) else [blocks])
        }
        done = (partial_results or PartialResults()).each(
            partial(_play, env, size, self.hold), tasks, "control", "block",
            **self.cluster(self.device),
        )  # fmt: skip
        returns: dict[str, list[float]] = {}
        steps: dict[str, int] = {}
        for task, (real_steps, of_blocks) in zip(tasks.values(), done, strict=True):
            returns.setdefault(task.name, []).extend(of_blocks)
            steps[task.name] = real_steps
        rows = []
        for name, values in returns.items():
            of_agent = np.array(values)
            value = normalised_return(of_agent, scale.random, scale.oracle, seed)
            row = {"agent": name, "env": env, "real_steps": steps[name]}
            row |= {"return": float(of_agent.mean()), "normalised_return": value.value}
            rows.append({**row, "low": value.low, "high": value.high, "episodes": value.n})
        return rows


def _median_row(runs: Sequence[Row]) -> Row:
    """The median of the normalised returns of several runs, and of the returns."""
    value = median(np.array([row["normalised_return"] for row in runs]))
    returns = float(np.median([row["return"] for row in runs]))
    return {
        **runs[0], "agent": f"{IMAGINED}, median", "return": returns,
        "normalised_return": value.value, "low": value.low, "high": value.high, "runs": value.n,
    }  # fmt: skip


def _play(env: str, size: int, hold: int, task: Task) -> tuple[int, NDArray[np.float64]]:
    """Real steps that the contestant cost, and its returns of all episodes of the task."""
    one = task.contestant
    one = one if isinstance(one, Contestant) else one()
    make = partial(gym.make, f"envs:{env}", size=size, split="test")
    returns = []
    for block in task.blocks:
        reseed = getattr(one.agent, "set_random_seed", None)
        if reseed is not None:
            reseed(block.start)
        returns.append(
            agents.evaluate(
                one.agent, make, len(block), seed=block.start, hold=hold,
                frame_stack=one.frame_stack, wrap=one.wrap, progress=True,
            )
        )  # fmt: skip
    return one.real_steps, np.concatenate(returns)


@dataclass(frozen=True)
class Reference:
    """Both ends of the scale for some episodes: float64 (episodes,) each."""

    random: NDArray[np.float64]
    oracle: NDArray[np.float64]


def reference(env: str, episodes: int, hold: int, seed: int = 0) -> Reference:
    """Random play with held actions, and the best, on the test episodes seed, seed + 1, ...

    Args:
        env: id of one of our environments with an agent.
        episodes: how many.
        hold: steps for which random play holds each action.
        seed: of the first episode, and of random play.

    Raises:
        ValueError: the environment is not one of ours, or a number is below 1.
    """
    if episodes < 1 or hold < 1:
        raise ValueError(f"episodes, hold: expected at least 1, got {episodes} and {hold}")
    simulator = simulator_of(env)
    made = gym.make(f"envs:{env}", size=16, split="test")  # the size does not change the scene
    ids = [made.reset(seed=seed + i)[1]["scene"] for i in range(episodes)]
    spec = ActionSpec.from_space(made.action_space)
    made.close()
    scenes, steps = torch.tensor(ids), simulator.max_steps
    lead = (episodes * RANDOM_PLAYS, -(-steps // hold))
    actions = draw_actions(spec, lead, torch.Generator().manual_seed(seed))
    actions = actions.repeat_interleave(hold, 1)[:, :steps]
    rewards = play(simulator, scenes.repeat_interleave(RANDOM_PLAYS), actions).rewards
    plays = rewards.sum(1).view(episodes, RANDOM_PLAYS).mean(1)
    oracle = simulator.best_return(simulator.begin(scenes))
    return Reference(plays.double().numpy(), oracle.double().numpy())
