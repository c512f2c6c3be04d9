"""How far off is one jump? Vector environments: JUMP, a per-step model rolled k times, copy-last.

All learn from the same recorded random episodes and predict the same states: from one observed
state and k actions, the state k steps later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import worldmodel
from evaluation.metrics import statistics
from evaluation.runner.measurement import Measurement, Row
from evaluation.runner.partial_results import PartialResults, progress
from worldmodel import ActionSpec, Context, Episodes, Queries, WorldModel

Predict = Callable[[Tensor, Tensor], Tensor]
"""States (n, D) and actions (n, k, \\*action) to the states k steps later (n, D)."""

WORLDS = 16
"""Sampled worlds whose mean is JUMP's prediction: the error is squared."""
MAX_STEPS = 100
"""Of an episode."""
TESTED = 100
"""Episodes that the models are compared on."""


class StepModel(nn.Module):
    """A perceptron from (state, action) to the change of the state, both standardised.

    What model-based agents of classic control commonly use (Nagabandi et al. 2018), without an
    ensemble: 2 hidden layers of 256.
    """

    def __init__(self, episodes: Episodes, seed: int, hidden: int = 256) -> None:
        super().__init__()
        self.action: ActionSpec = episodes.action
        self.states = torch.from_numpy(np.concatenate([e.observations[:-1] for e in episodes]))
        after = torch.from_numpy(np.concatenate([e.observations[1:] for e in episodes]))
        self.changes = after - self.states
        self.actions = torch.from_numpy(np.concatenate([e.actions for e in episodes]))
        self.moments = [_moments(x) for x in (self.states, self.changes)]
        size = self.states.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(size + self.action.features, hidden), nn.ReLU(),
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, size),
            )  # fmt: skip

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """The standardised change (n, D) that actions (n, \\*action) make to states (n, D)."""
        scale, shift = self.moments[0]
        features = torch.cat([(states - shift) / scale, self.action.encode(actions)], -1)
        change: Tensor = self.net(features)
        return change

    def learn(self, steps: int, seed: int, batch: int = 256) -> StepModel:
        """Adam, 1e-3 falling linearly to 0."""
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, steps)
        scale, shift = self.moments[1]
        for _ in progress(range(steps), "fit per-step MLP", "step"):
            rows = torch.randint(len(self.states), (batch,), generator=generator)
            target = (self.changes[rows] - shift) / scale
            loss = (self(self.states[rows], self.actions[rows]) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self

    @torch.inference_mode()
    def roll(self, states: Tensor, actions: Tensor) -> Tensor:
        """Step through all k actions (n, k, \\*action)."""
        scale, shift = self.moments[1]
        for step in range(actions.shape[1]):
            states = states + self(states, actions[:, step]) * scale + shift
        return states


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (D,) of values (n, D); numbers that never change keep their scale."""
    scale, shift = torch.std_mean(values, 0)
    return torch.where(scale > 1e-6, scale, 1.0), shift


def one_jump(model: WorldModel, seed: int) -> Predict:
    """The mean over ``WORLDS`` worlds of the last state, the only one that is queried."""

    @torch.inference_mode()
    def predict(states: Tensor, actions: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        times = torch.zeros(len(states), 1, dtype=torch.int64)
        worlds = model.sample(model.observe(Context(states[:, None], times)), WORLDS, generator)
        query = Queries(times + actions.shape[1], actions[:, None])
        states_after = model.predict(worlds, query).observations
        assert states_after is not None
        return states_after[:, :, 0, 0].mean(1)

    return predict


def transitions(episodes: Episodes, k: int) -> tuple[Tensor, Tensor, Tensor, NDArray[np.int64]]:
    """All states with k recorded steps after them.

    Returns:
        states (n, D), actions (n, k, \\*action), states k steps later (n, D), and of which episode
        each is (n,).

    Raises:
        ValueError: no episode has k steps.
    """
    numbers, before, actions, after = [], [], [], []
    for number, episode in enumerate(episodes):
        for start in range(len(episode.actions) - k + 1):
            numbers.append(number)
            before.append(episode.observations[start])
            actions.append(episode.actions[start : start + k])
            after.append(episode.observations[start + k])
    if not numbers:
        raise ValueError(f"episodes: none of them has {k} steps")
    states, plans, later = (torch.from_numpy(np.stack(x)) for x in (before, actions, after))
    return states, plans, later, np.array(numbers)


def errors(
    models: Mapping[str, Predict], episodes: Episodes, distances: Sequence[int], scale: Tensor
) -> list[Row]:
    """Rows ``model, k, mse, low, high, n``: in units of ``scale``, intervals over episodes."""
    rows = []
    for k in distances:
        states, actions, after, owner = transitions(episodes, k)
        for name, predict in models.items():
            parts = zip(states.split(512), actions.split(512), strict=True)
            predicted = torch.cat([predict(*part) for part in parts])
            error = ((predicted - after) / scale).square().mean(1).double().numpy()
            each = np.array([error[owner == number].mean() for number in np.unique(owner)])
            rows.append({"model": name, "k": k, **statistics.mean(each).columns("mse")})
    return rows


@dataclass(frozen=True)
class Dynamics(Measurement):
    """Error of a jump of k steps on vectors, and of a per-step model."""

    name = "dynamics"
    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1")
    """Gymnasium ids, with float vectors as observations."""
    episodes: int = 2000
    """To learn from."""
    steps: int = 10_000
    """Of training, for each model."""
    distances: tuple[int, ...] = (1, 5, 20)
    """k; JUMP looks across windows of the longest."""
    seed: int = 0

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``env, model, k, mse, low, high, n`` of all environments; see ``errors``."""
        parts = {env: env for env in self.envs}
        return list(chain(*partial_results.each(self._of_env, parts, self.name, "environment")))

    def _of_env(self, env: str) -> list[Row]:
        """Collect random episodes, train both models, compare them on others."""
        seed, window = self.seed, max(self.distances)
        recorded = worldmodel.collect(env, self.episodes, seed=seed, max_steps=MAX_STEPS)
        test = worldmodel.collect(env, TESTED, seed=seed + self.episodes, max_steps=MAX_STEPS)
        model = worldmodel.make("jump", recorded.spec(window), seed=seed)
        worldmodel.fit(model, recorded.windows(window, 64, seed), self.steps, seed=seed)
        per_step = StepModel(recorded, seed).learn(self.steps, seed)
        models: dict[str, Predict] = {
            "copy-last": lambda states, _: states,
            "jump, one jump": one_jump(model, seed),
            "per-step MLP, rolled": per_step.roll,
        }
        scale = per_step.moments[0][0]
        return [{"env": env, **row} for row in errors(models, test, self.distances, scale)]
