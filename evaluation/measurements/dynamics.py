"""How far off is a model after k steps, and does it know? Vectors: one jump, steps rolled k times.

JUMP, the ensemble, a perceptron for a single step, and copy-last learn from the same recorded
random episodes and predict the same states: from one observed state and k actions, the state k
steps later. Of the first two, which sample worlds, it is measured how often 90% intervals hold what
happened.
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
"""States (n, D) and actions (n, k, \\*action) to the states k steps later in S worlds (n, S, D)."""

MODELS = ("jump", "ensemble", "per-step")
WORLDS = 39
"""Sampled worlds. Their mean is the prediction: the error is squared."""
OUTSIDE = 2
"""The interval reaches from the second lowest world to the second highest: what happens is as any
further world to a calibrated model, and lies within with the chance (39 + 1 - 2 * 2) / 40 = 90%."""
MAX_STEPS = 200
"""Of an episode."""
TESTED = 100
"""Episodes that the models are compared on."""
ENOUGH = 20
"""Episodes that must reach a distance for it to be measured."""
BATCHES = {"jump": 64, "ensemble": 256}
"""Of training: windows, and single steps."""
MOST = 1000
"""Transitions that they are compared on, for each distance."""


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


def worlds_of(model: WorldModel, seed: int) -> Predict:
    """The last state in each of ``WORLDS`` worlds, the only one that is queried."""

    @torch.inference_mode()
    def predict(states: Tensor, actions: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        times = torch.zeros(len(states), 1, dtype=torch.int64)
        worlds = model.sample(model.observe(Context(states[:, None], times)), WORLDS, generator)
        query = Queries(times + actions.shape[1], actions[:, None])
        states_after = model.predict(worlds, query).observations
        assert states_after is not None
        return states_after[:, :, 0, 0]

    return predict


def transitions(
    episodes: Episodes, k: int, most: int = MOST
) -> tuple[Tensor, Tensor, Tensor, NDArray[np.int64]]:
    """States with k recorded steps after them: all, or ``most`` of them, evenly spaced.

    Returns:
        states (n, D), actions (n, k, \\*action), states k steps later (n, D), and of which episode
        each is (n,).

    Raises:
        ValueError: no episode has k steps.
    """
    starts = [
        (number, start)
        for number, episode in enumerate(episodes)
        for start in range(len(episode.actions) - k + 1)
    ]
    if not starts:
        raise ValueError(f"episodes: none of them has {k} steps")
    numbers, before, actions, after = [], [], [], []
    for number, start in starts[:: -(-len(starts) // most)]:
        episode = episodes[number]
        numbers.append(number)
        before.append(episode.observations[start])
        actions.append(episode.actions[start : start + k])
        after.append(episode.observations[start + k])
    states, plans, later = (torch.from_numpy(np.stack(x)) for x in (before, actions, after))
    return states, plans, later, np.array(numbers)


def errors(
    models: Mapping[str, Predict], episodes: Episodes, distances: Sequence[int], scale: Tensor
) -> list[Row]:
    """Rows ``model, k, mse, low, high, n``: in units of ``scale``, intervals over episodes.

    Where a model has several worlds, ``coverage``, ``coverage_low`` and ``coverage_high`` as well:
    the share of numbers within their 90% intervals, and its interval over episodes.
    """
    rows = []
    for k in distances:
        states, actions, after, owner = transitions(episodes, k)
        for name, predict in models.items():
            parts = zip(states.split(256), actions.split(256), strict=True)
            worlds = torch.cat([predict(*part) for part in parts])
            error = ((worlds.mean(1) - after) / scale).square()
            row: Row = {"model": name, "k": k, **_over_episodes(error, owner).columns("mse")}
            if worlds.shape[1] > 1:
                ordered = worlds.sort(1).values
                low, high = ordered[:, OUTSIDE - 1], ordered[:, -OUTSIDE]
                share = _over_episodes((low <= after) & (after <= high), owner)
                row |= {"coverage": share.value}
                row |= {"coverage_low": share.low, "coverage_high": share.high}
            rows.append(row)
    return rows


def _over_episodes(values: Tensor, owner: NDArray[np.int64]) -> statistics.Interval:
    """The mean of (n, D) over episodes, each of which counts the same, with its interval."""
    each = values.double().mean(1).numpy()
    return statistics.mean(np.array([each[owner == one].mean() for one in np.unique(owner)]))


@dataclass(frozen=True)
class Dynamics(Measurement):
    """Error of k steps on vectors, jumped and stepped, and coverage of 90% intervals."""

    name = "dynamics"
    envs: tuple[str, ...] = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1")
    """Gymnasium ids, with float vectors as observations."""
    episodes: int = 2000
    """To learn from."""
    steps: int = 10_000
    """Of training, for each model; the ensemble stops early."""
    models: tuple[str, ...] = MODELS
    """Besides copy-last: JUMP, the ensemble, the perceptron for a single step."""
    distances: tuple[int, ...] = (1, 5, 20, 100)
    """k; JUMP looks across windows of the longest that the environment's episodes have."""
    seed: int = 0

    def __post_init__(self) -> None:
        for model in self.models:
            if model not in MODELS:
                raise ValueError(f"models: expected some of {', '.join(MODELS)}; got {model!r}")

    def rows(self, partial_results: PartialResults) -> list[Row]:
        """Rows ``env, model, k, ...`` of all environments; see ``errors``."""
        parts = {env: env for env in self.envs}
        return list(chain(*partial_results.each(self._of_env, parts, self.name, "environment")))

    def _of_env(self, env: str) -> list[Row]:
        """Collect random episodes, train the models, compare them on others."""
        seed = self.seed
        recorded = worldmodel.collect(env, self.episodes, seed=seed, max_steps=MAX_STEPS)
        test = worldmodel.collect(env, TESTED, seed=seed + self.episodes, max_steps=MAX_STEPS)
        distances = [k for k in self.distances if np.sum(test.lengths >= k) >= ENOUGH]
        if not distances:
            raise ValueError(
                f"distances: expected one that {ENOUGH} of {TESTED} random episodes of {env} "
                f"reach, got {self.distances}; their median is {int(np.median(test.lengths))} steps"
            )
        spec = recorded.spec(max(distances))
        models: dict[str, Predict] = {"copy-last": lambda states, _: states[:, None]}
        for name, title in (("jump", "jump, one jump"), ("ensemble", "ensemble, rolled")):
            if name not in self.models:
                continue
            model = worldmodel.make(name, spec, seed=seed)
            worldmodel.fit(model, recorded, self.steps, batch_size=BATCHES[name], seed=seed)
            models[title] = worlds_of(model, seed)
        per_step = StepModel(recorded, seed)
        scale = per_step.moments[0][0]
        if "per-step" in self.models:
            per_step.learn(self.steps, seed)
            models["per-step MLP, rolled"] = lambda *query: per_step.roll(*query)[:, None]
        return [{"env": env, **row} for row in errors(models, test, distances, scale)]
