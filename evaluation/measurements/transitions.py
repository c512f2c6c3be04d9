"""Imagined transitions per second, and what Stable-Baselines3 does with them in the same time.

Imagination should cost less than the gradient steps that learn from it. All jobs take turns in one
process: ``ImaginedVecEnv`` steps many episodes at once, the real environment steps one, and SAC or
DQN and PPO train on transitions that they have gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import tyro
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.logger import configure
from torch import Generator

import worldmodel
from agents.actions import draw_actions, to_numpy
from agents.vec_env import ImaginedVecEnv
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel import Episodes, Spec, WorldModel, collect, fit
from worldmodel.common import results
from worldmodel.common.config_checks import numbers_at_least
from worldmodel.common.timing import interleaved

Job = tuple[int, Callable[[], object]]
"""Transitions that a call takes or learns from, and the call."""

WINDOW = 32
"""Steps that fresh models look across."""


@dataclass(frozen=True)
class Transitions(Measurement):
    """Imagined transitions per second of vector models, and SB3's training rates."""

    name = "transitions"
    columns = ("env", "what", "model", "batch", "per_second", "low", "high", "n")
    models: tyro.conf.Positional[tuple[str, ...]] = ("ensemble:vector",)
    """model:preset, fitted for a moment."""
    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1")
    """Gymnasium ids of vector environments."""
    batches: tuple[int, ...] = (512,)
    """Imagined episodes at once."""
    train_batch: int = 256
    """Transitions of a gradient step."""
    updates: int = 20
    """Gradient steps, imagined decisions and a twentieth of the real steps in a timed round."""
    repeats: int = 7
    """Timed rounds; medians count, and from 6 rounds on their intervals are of 95%."""
    seed: int = 0
    device: str = "cpu"

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``env, what, model, batch, per_second, low, high, n``.

        ``what`` is "imagined" (``model`` steps ``batch`` episodes of ``ImaginedVecEnv`` together,
        with random actions and new episodes for those that end), "real" (one environment, random
        actions) or "trained": transitions that ``model``, an algorithm, learns from, ``batch`` in
        each gradient step; PPO passes over them once. All with SB3's default networks.

        Raises:
            ValueError: a number is below 1, or observations are images.
        """
        numbers_at_least(
            1, updates=self.updates, repeats=self.repeats, train_batch=self.train_batch,
            batches=min(self.batches, default=1),
        )  # fmt: skip
        rows = []
        for env in self.envs:
            jobs = self._jobs(env)
            calls = {key: call for key, (_, call) in jobs.items()}
            for (what, model, batch), seconds in interleaved(calls, self.repeats).items():
                amount = jobs[what, model, batch][0]
                row = {"env": env, "what": what, "model": model, "batch": batch}
                rate = statistics.median(amount / seconds)
                rows.append({**row, **rate.columns("per_second")})
        return rows

    def _jobs(self, env: str) -> dict[tuple[str, str, int], Job]:
        made = gym.make(env)
        spec = Spec.from_spaces(made.observation_space, made.action_space, WINDOW)
        if spec.is_image:
            raise ValueError(f"envs: expected vectors, {env} has {spec.observation}")
        episodes = collect(env, steps=600, seed=self.seed)
        jobs: dict[tuple[str, str, int], Job] = {}
        for name in self.models:
            model = self._fitted(name, spec, episodes)
            for batch in self.batches:
                jobs["imagined", name, batch] = self._imagined(model, episodes, batch)
        jobs["real", env, 1] = (20 * self.updates, partial(_play, made, 20 * self.updates))
        discrete = isinstance(made.action_space, gym.spaces.Discrete)
        replay: type[DQN] | type[SAC] = DQN if discrete else SAC
        jobs["trained", replay.__name__, self.train_batch] = self._replay(replay, env)
        jobs["trained", "PPO", self.train_batch] = self._ppo(env)
        return jobs

    def _fitted(self, name: str, spec: Spec, episodes: Episodes) -> WorldModel:
        kind, preset = results.name_and_preset(name)
        model = worldmodel.make(kind, spec, preset, seed=self.seed).to(self.device)
        windows = episodes.windows(spec.window, 32, self.seed, model.device)
        fit(model, windows, 20, seed=self.seed, progress=False)
        return model.eval()

    def _imagined(self, model: WorldModel, episodes: Episodes, batch: int) -> Job:
        venv = ImaginedVecEnv(model, episodes, batch, seed=self.seed)
        spec = model.spec.action
        sampled = draw_actions(spec, (self.updates, batch), Generator().manual_seed(self.seed))
        actions = to_numpy(spec, sampled)
        venv.reset()

        def job() -> None:
            for each in actions:
                venv.step(each)

        return batch * self.updates, job

    def _replay(self, kind: type[DQN] | type[SAC], env: str) -> Job:
        agent = kind("MlpPolicy", env, learning_starts=10**6, buffer_size=10_000, device="cpu")
        agent.learn(2 * self.train_batch)
        agent.set_logger(configure(None, []))
        amount = self.updates * self.train_batch
        return amount, partial(agent.train, self.updates, self.train_batch)

    def _ppo(self, env: str) -> Job:
        steps = self.updates * self.train_batch
        agent = PPO(
            "MlpPolicy", env, n_steps=steps, batch_size=self.train_batch, n_epochs=1, device="cpu"
        )
        agent.learn(steps)
        agent.set_logger(configure(None, []))
        return steps, agent.train


def _play(env: gym.Env[Any, Any], steps: int) -> None:
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
