"""Are imagined rewards and ends right on the average, by chance, at any scale, in a crash?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

import worldmodel
from agents import ImaginedVecEnv, RandomAgent
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults
from worldmodel import Context, Episodes, Queries, WorldModel

WORLDS = 64
"""Sampled worlds whose mean is the expectation."""
TESTED = 1000
"""Recorded steps, held out, from which is imagined."""
SCALES = (1.0, 1e-2, 1e-4, 1e-6, 1e4, 1e6)
"""Factors of CartPole's rewards."""
WIDTHS = {"mlp": 64, "tower": 16, "scene": 64, "head": 64}
"""Of JUMP, below those of its preset for vectors: these environments are small. The path of actions
and the targets stay: with a quarter of the path, one seed of three never learned what late actions
do to CartPole (R^2 .875, after twice the steps too)."""
AHEAD = 5
"""Steps that are imagined of the bandit and of CartPole."""
LANDER = "LunarLander-v3"
LAST = 10
"""Steps before a crash from which the lander's rewards are imagined."""


class Bandit(gym.Env[Any, Any]):
    """Action 0 pays 1, action 1 pays 20 with chance .1: 2 on the average. It says nothing of it."""

    prizes, chance, steps = (1.0, 20.0), 0.1, 10

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.time = 0
        return self._noise(), {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        self.time += 1
        pays = action == 0 or self.np_random.random() < self.chance
        reward = self.prizes[int(action)] * float(pays)
        return self._noise(), reward, self._ends(), self.time >= self.steps, {}

    def _noise(self) -> NDArray[np.float32]:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def _ends(self) -> bool:
        return False


class EndsByChance(Bandit):
    """Each step pays 1 and ends the episode with chance .1, whatever is done."""

    prizes, steps = (1.0, 1.0), 1000

    def _ends(self) -> bool:
        return bool(self.np_random.random() < self.chance)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        return super().step(0)


class Balance(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that pays for an upright pole near the middle, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.factor = factor

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, _, *ends = self.env.step(action)
        x, _, angle, _ = (float(number) for number in observation)
        return observation, self.factor * (1 - (angle / 0.21) ** 2 - abs(x) / 2.4), *ends


@torch.inference_mode()
def expected_rewards(
    model: WorldModel, observations: NDArray[Any], actions: NDArray[Any], seed: int
) -> NDArray[np.float64]:
    """(n, L): rewards of L actions (n, L, \\*action) from n observations, times the chance that the
    episode still runs, in the mean over ``WORLDS`` worlds.
    """
    generator, parts = torch.Generator().manual_seed(seed), []
    for rows in np.array_split(np.arange(len(observations)), -(-len(observations) // 100)):
        now = torch.zeros(len(rows), 1, dtype=torch.int64)
        first = model.spec.to_model(torch.from_numpy(observations[rows][:, None]))
        worlds = model.sample(model.observe(Context(first, now)), WORLDS, generator)
        plans = torch.from_numpy(actions[rows][:, None])
        times = torch.arange(1, actions.shape[1] + 1).expand(len(rows), -1)
        answer = model.predict(worlds, Queries(times, plans), frames=False)
        parts.append((answer.running * answer.rewards)[:, :, 0].mean(1).double().numpy())
    return np.concatenate(parts)


def r_squared(real: NDArray[Any], imagined: NDArray[Any]) -> float:
    """Share of the variance that is explained: 1 is perfect, 0 no better than the mean."""
    return float(1 - np.square(imagined - real).mean() / real.astype(np.float64).var())


def _steps(episodes: Episodes, length: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of up to ``TESTED`` steps: observations, and the ``length`` actions and rewards after."""
    parts = [
        (e.observations[i], e.actions[i : i + length], e.rewards[i : i + length])
        for e in episodes
        for i in range(len(e.actions) - length + 1)
    ]
    chosen = np.linspace(0, len(parts) - 1, min(TESTED, len(parts))).astype(int)
    observations, actions, rewards = (np.stack([parts[i][k] for i in chosen]) for k in range(3))
    return observations, actions, rewards


@dataclass(frozen=True)
class Outcomes(Measurement):
    """Whether imagined rewards and ends are right on the average: rewards by chance, ends by
    chance, six scales of rewards, and a lander's crash (where Gymnasium's Box2D is installed).
    """

    name = "outcomes"
    columns = ("case", "quantity", "seed", "real", "imagined")
    seeds: int = 3
    """Runs of each."""
    steps: int = 2400
    """Of each training."""
    episodes: int = 1000
    """Recorded random episodes to learn from; of the lander half as many, for they are longer."""

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``case, quantity, seed, real, imagined``; what real rewards explain is 1."""
        cases: dict[str, Callable[[int], list[Row]]] = {
            "bandit": self.bandit,
            "ends by chance": self.ends,
            **{f"CartPole x {scale:g}": partial(self.scale, scale) for scale in SCALES},
            LANDER: self.lander,
        }
        parts = {
            f"{case}, seed {seed}": (case, seed) for case in cases for seed in range(self.seeds)
        }

        def measured(part: tuple[str, int]) -> list[Row]:
            case, seed = part
            return [{"case": case, "seed": seed, **row} for row in cases[case](seed)]

        return list(chain(*partial_results.each(measured, parts, self.name, "run")))

    def bandit(self, seed: int) -> list[Row]:
        """The mean reward of either action, and how often the better one seems better."""
        model, episodes = self._trained(Bandit, AHEAD, seed)
        observations = np.random.default_rng(seed).uniform(-1, 1, (TESTED, 2)).astype(np.float32)
        plans = [np.full((TESTED, 1), action) for action in (0, 1)]
        means = [expected_rewards(model, observations, plan, seed) for plan in plans]
        actions, rewards = (
            np.concatenate([getattr(e, part) for e in episodes]) for part in ("actions", "rewards")
        )
        rows = [
            _row(f"mean reward of action {i}", rewards[actions == i].mean(), means[i].mean())
            for i in (0, 1)
        ]
        return [*rows, _row("share of decisions for action 1", 1, (means[1] > means[0]).mean())]

    def ends(self, seed: int) -> list[Row]:
        """The length of episodes that begin at recorded steps, up to ten steps."""
        model, episodes = self._trained(EndsByChance, 10, seed)
        venv = ImaginedVecEnv(model, episodes, TESTED, horizon=10, seed=seed)
        agent = RandomAgent(venv.action_space, seed)
        current, going, total = venv.reset(), np.ones(TESTED, bool), 0
        for _ in range(10):
            total += int(going.sum())
            current, _, dones, _ = venv.step(agent.predict(current)[0])
            going &= ~dones
        ahead = np.concatenate([np.minimum(np.arange(n, 0, -1), 10) for n in episodes.lengths])
        return [_row("steps of an episode, at most 10", ahead.mean(), total / TESTED)]

    def scale(self, factor: float, seed: int) -> list[Row]:
        """R^2 of single rewards, on held-out episodes."""
        make = partial(Balance, factor)
        model, _ = self._trained(make, AHEAD, seed)
        held_out = worldmodel.collect(make, 50, seed=seed + 10**6, progress=False)
        observations, actions, rewards = _steps(held_out, AHEAD)
        imagined = expected_rewards(model, observations, actions, seed)
        return [_row("R^2 of rewards", 1.0, r_squared(rewards, imagined))]

    def lander(self, seed: int) -> list[Row]:
        """The reward of the step of a crash, and of the ten before and with it."""
        try:
            gym.make(LANDER).close()
        except gym.error.DependencyNotInstalled as error:
            return [{"quantity": f"not measured: {error}"}]
        model, _ = self._trained(LANDER, 20, seed, max(2, self.episodes // 2))
        held_out = worldmodel.collect(LANDER, 100, seed=seed + 10**6, progress=False)
        crashes = [e for e in held_out if e.terminated and len(e.actions) >= LAST]
        rows = []
        for count in (1, LAST):
            observations = np.stack([episode.observations[-1 - count] for episode in crashes])
            actions = np.stack([episode.actions[-count:] for episode in crashes])
            rewards = np.stack([episode.rewards[-count:] for episode in crashes])
            imagined = expected_rewards(model, observations, actions, seed).sum(1).mean()
            quantity = "reward of the last step" if count == 1 else f"of the last {count} steps"
            rows.append(_row(quantity, rewards.sum(1).mean(), imagined))
        return rows

    def _trained(
        self,
        env: worldmodel.EnvLike,
        window: int,
        seed: int,
        episodes: int | None = None,
    ) -> tuple[WorldModel, Episodes]:
        """A model of random play, and the play."""
        recorded = worldmodel.collect(env, episodes or self.episodes, seed=seed, progress=False)
        config = replace(worldmodel.preset("jump", "vector"), **WIDTHS)
        model = worldmodel.make("jump", recorded.spec(window), config, seed=seed)
        source = recorded.windows(window, 64, seed)
        worldmodel.fit(model, source, self.steps, seed=seed, progress=False)
        return model.eval(), recorded


def _row(quantity: str, real: float, imagined: float) -> Row:
    return {"quantity": quantity, "real": float(real), "imagined": float(imagined)}
