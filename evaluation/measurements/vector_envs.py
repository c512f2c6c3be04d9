"""Returns on vector environments: the README's two recipes, from random real steps to an agent.

A world model is trained on recorded random episodes, and an agent in imagined ones that branch off
from them. Every seed is a run of its own, from recording to playing; seed 0 is what the README's
snippets do, with the settings that stand here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import gymnasium as gym
from stable_baselines3 import SAC

from agents import ImaginedVecEnv, RandomAgent, evaluate, train_in_imagination
from agents.planners.base import Agent
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Row, Scattered
from evaluation.runner.partial_results import PartialResults, on_terminal
from worldmodel import Episodes, WorldModel, collect, fit, make

TEST_SEED = 10**6
"""Real episodes that count begin here; those to learn from have other seeds."""
APART = 10**5
"""Distance of the first episodes of two seeds."""
PPO_SETTINGS: dict[str, Any] = {
    "n_epochs": 20,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 1e-3 * left,
    "clip_range": lambda left: 0.2 * left,
}
"""RL Zoo's for CartPole."""
SAC_SETTINGS: dict[str, Any] = {
    "learning_starts": 1000,
    "gradient_steps": 4,
    "learning_rate": 1e-3,
    "gamma": 0.98,
    "policy_kwargs": {"net_arch": [128, 128]},
}


@dataclass(frozen=True)
class Recipe:
    """From random play to an agent.

    Attributes:
        env: Gymnasium id of an environment with vectors.
        agent: PPO (discrete actions) or SAC (boxes), which learns in imagination alone.
        recorded: (episodes, hold, first seed) of random play, each action held for ``hold`` steps.
        window: steps that the world model looks across.
        horizon: steps of an imagined episode.
        fit_steps: of its training.
        imagined_steps: of the agent at each evaluation, ascending; PPO is evaluated once.
        episodes: real ones, at each evaluation.
    """

    env: str
    agent: Literal["PPO", "SAC"]
    recorded: tuple[tuple[int, int, int], ...]
    window: int
    horizon: int
    fit_steps: int
    imagined_steps: tuple[int, ...]
    episodes: int

    def __post_init__(self) -> None:
        if self.agent == "PPO" and len(self.imagined_steps) != 1:
            raise ValueError(
                f"imagined_steps: PPO is played once, when it has learned; expected one number, "
                f"got {self.imagined_steps}"
            )


RECIPES = (
    Recipe("CartPole-v1", "PPO", ((500, 1, 0),), 20, 20, 4000, (50_000,), 50),
    Recipe(
        "Pendulum-v1", "SAC", ((70, 1, 0), (70, 4, 1000), (70, 10, 2000)), 10, 10, 4000,
        (12_000, 24_000), 20,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class VectorEnvs(Measurement, Scattered):
    """Real returns of the README's recipes for CartPole and Pendulum, learned in imagination."""

    name = "vector-envs"
    seeds: int = 1
    """Runs of each, three to five minutes each; each records and trains by itself."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Those of ``follow``, of the README's recipes."""
        return self.follow(RECIPES, partial_results)

    def follow(
        self, recipes: Sequence[Recipe], partial_results: PartialResults | None = None
    ) -> list[Row]:
        """Rows ``env, agent, real_steps, imagined_steps, seed, return, low, high, episodes``.

        ``return`` is the mean over real episodes, the same ones for all agents of an environment,
        with its 95% interval over these; how much runs differ shows across seeds. Random play,
        for comparison, has ``agent`` "random play" and the seed 0.

        Args:
            recipes: to follow.
            partial_results: holds the runs that are done.

        Raises:
            ValueError: ``seeds`` is below 1, or a recipe has fewer than 2 episodes to play.
        """
        if self.seeds < 1:
            raise ValueError(f"seeds: expected at least 1, got {self.seeds}")
        runs: dict[str, tuple[Recipe, int | None]] = {}
        for recipe in recipes:
            runs[f"{recipe.env}, random play"] = (recipe, None)
            runs |= {f"{recipe.env}, seed {seed}": (recipe, seed) for seed in range(self.seeds)}
        done = (partial_results or PartialResults()).each(
            _run, runs, self.name, "run", **self.cluster()
        )
        return list(chain(*done))


def _run(part: tuple[Recipe, int | None]) -> list[Row]:
    """One run: record, train the world model, train the agent in it, play it; or random play."""
    recipe, seed = part
    if seed is None:
        env = gym.make(recipe.env)
        random = RandomAgent(env.action_space, seed=0)
        env.close()
        row = {**_evaluated(recipe, random, 0), "agent": "random play"}
        return [{**row, "real_steps": 0, "imagined_steps": 0}]
    parts = [
        collect(recipe.env, count, hold=hold, seed=seed * APART + first)
        for count, hold, first in recipe.recorded
    ]
    episodes = sum(parts[1:], parts[0])
    model = make("jump", episodes.spec(recipe.window), seed=seed)
    fit(model, episodes.windows(recipe.window, 32, seed), recipe.fit_steps, seed=seed)
    learn = _ppo if recipe.agent == "PPO" else _sac
    return [
        {**_evaluated(recipe, agent, seed), "real_steps": episodes.steps, "imagined_steps": steps}
        for steps, agent in learn(recipe, model, episodes, seed)
    ]


def _ppo(
    recipe: Recipe, model: WorldModel, episodes: Episodes, seed: int
) -> Iterator[tuple[int, Agent]]:
    (steps,) = recipe.imagined_steps
    agent = train_in_imagination(
        model, episodes, steps, horizon=recipe.horizon, frame_stack=1, seed=seed,
        progress_bar=on_terminal(), **PPO_SETTINGS,
    )  # fmt: skip
    yield steps, agent


def _sac(
    recipe: Recipe, model: WorldModel, episodes: Episodes, seed: int
) -> Iterator[tuple[int, Agent]]:
    venv = ImaginedVecEnv(model, episodes, num_envs=16, horizon=recipe.horizon, seed=seed)
    agent = SAC("MlpPolicy", venv, seed=seed, **SAC_SETTINGS)
    for wanted in recipe.imagined_steps:
        agent.learn(
            wanted - agent.num_timesteps,
            reset_num_timesteps=agent.num_timesteps == 0,
            progress_bar=on_terminal(),
        )
        yield wanted, agent


def _evaluated(recipe: Recipe, agent: Agent, seed: int) -> Row:
    returns = evaluate(agent, recipe.env, recipe.episodes, TEST_SEED)
    value, low, high, n = statistics.mean(returns)
    return {
        "env": recipe.env, "agent": recipe.agent, "seed": seed,
        "return": value, "low": low, "high": high, "episodes": n,
    }  # fmt: skip
