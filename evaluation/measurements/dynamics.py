"""How far off is one jump? Vector environments: JUMP, a per-step model rolled k times, copy-last.

All learn from the same recorded random episodes and are asked the same questions: from one observed
state and k actions, what is the state k steps later?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import worldmodel
from evaluation.metrics import statistics
from evaluation.runner.progress import shown
from worldmodel import ActionSpec, Context, Episodes, Queries, WorldModel

Predict = Callable[[Tensor, Tensor], Tensor]
"""States (n, D) and actions (n, k, \\*action) to the states k steps later (n, D)."""

WORLDS = 16
"""Sampled worlds whose mean is JUMP's answer: the error is squared."""


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
        for _ in shown(range(steps), "fit per-step MLP", "step"):
            rows = torch.randint(len(self.states), (batch,), generator=generator)
            wanted = (self.changes[rows] - shift) / scale
            loss = (self(self.states[rows], self.actions[rows]) - wanted).square().mean()
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
    """The mean over ``WORLDS`` worlds, asked for the last state alone."""

    @torch.inference_mode()
    def predict(states: Tensor, actions: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        times = torch.zeros(len(states), 1, dtype=torch.int64)
        worlds = model.sample(model.observe(Context(states[:, None], times)), WORLDS, generator)
        query = Queries(times + actions.shape[1], actions[:, None])
        answer = model.predict(worlds, query).observations
        assert answer is not None
        return answer[:, :, 0, 0].mean(1)

    return predict


def questions(episodes: Episodes, k: int) -> tuple[Tensor, Tensor, Tensor, NDArray[np.int64]]:
    """All states with k steps behind them: states, actions, answers and episode numbers.

    Raises:
        ValueError: no episode has k steps.
    """
    found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    owner = []
    for number, episode in enumerate(episodes):
        for start in range(len(episode.actions) - k + 1):
            end = start + k
            seen = episode.observations
            found.append((seen[start], episode.actions[start:end], seen[end]))
            owner.append(number)
    if not found:
        raise ValueError(f"episodes: none of them has {k} steps")
    states, actions, answers = (
        torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)
    )
    return states, actions, answers, np.array(owner)


def errors(
    contestants: Mapping[str, Predict], episodes: Episodes, distances: Sequence[int], scale: Tensor
) -> list[dict[str, Any]]:
    """Rows ``model, k, mse, low, high, n``: in units of ``scale``, intervals over episodes."""
    rows = []
    for k in distances:
        states, actions, answers, owner = questions(episodes, k)
        for name, predict in contestants.items():
            parts = zip(states.split(512), actions.split(512), strict=True)
            guessed = torch.cat([predict(*part) for part in parts])
            error = ((guessed - answers) / scale).square().mean(1).double().numpy()
            each = np.array([error[owner == number].mean() for number in np.unique(owner)])
            interval = statistics.mean(each)
            rows.append({"model": name, "k": k, **interval._asdict()})
    for row in rows:
        row["mse"] = row.pop("value")
    return rows


def dynamics(
    env: str,
    episodes: int = 2000,
    steps: int = 10_000,
    distances: Sequence[int] = (1, 5, 20),
    *,
    max_steps: int = 100,
    batch: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Collect random episodes, train both models, and compare them on 100 unseen episodes.

    Args:
        env: Gymnasium id of an environment with float vectors.
        episodes: to learn from.
        steps: of training; the per-step model takes as many.
        distances: k; JUMP looks across windows of the longest.
        max_steps: of an episode.
        batch: windows in a batch.
        seed: of everything.
    """
    learned = worldmodel.collect(env, episodes, seed=seed, max_steps=max_steps)
    unseen = worldmodel.collect(env, 100, seed=seed + episodes, max_steps=max_steps)
    window = max(distances)
    model = worldmodel.make("jump", learned.spec(window), seed=seed)
    worldmodel.fit(model, learned.windows(window, batch, seed), steps, seed=seed)
    rolled = StepModel(learned, seed).learn(steps, seed)
    contestants: dict[str, Predict] = {
        "copy-last": lambda states, _: states,
        "jump, one jump": one_jump(model, seed),
        "per-step MLP, rolled": rolled.roll,
    }
    scale = rolled.moments[0][0]
    return [{"env": env, **row} for row in errors(contestants, unseen, distances, scale)]
