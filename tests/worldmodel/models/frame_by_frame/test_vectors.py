"""Frame-by-frame models of vector observations: the smallest one keeps every promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import VECTOR, generator
from torch import Tensor, nn

from worldmodel import Context, Episode, Episodes, Queries, SceneBatch, Spec, fit
from worldmodel.base import Losses
from worldmodel.models.frame_by_frame import FrameByFrame
from worldmodel.models.frame_by_frame.base import State, at_times
from worldmodel.models.frame_by_frame.teacher_forcing import (
    TrainingConfig,
    losses,
    take_segment,
)
from worldmodel.registry import MODELS, make, register
from worldmodel.testing import check_world_model
from worldmodel.training.validation import free_running


@dataclass(frozen=True)
class LinearConfig(TrainingConfig):
    """``TrainingConfig`` with a rate for a handful of steps."""

    learning_rate: float = 3e-2
    learning_rate_end: float = 3e-2


class Linear(FrameByFrame):
    """x_t = A (x_{t-1}, a_{t-1}) + sigma e_t, with rewards and continuations linear in x_t."""

    name = "linear"
    takes_vectors = True
    feeds_back = True

    def __init__(self, spec: Spec, config: LinearConfig) -> None:
        super().__init__(spec, config)
        numbers = spec.observation[0]
        self.move = nn.Linear(numbers + spec.action.features, numbers)
        self.spread = nn.Parameter(torch.full((numbers,), 0.1))
        self.readout = nn.Linear(numbers, 2)
        self.noise_shape = spec.observation

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"x": at_times(observations, present)}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        after = self.move(torch.cat([state["x"], actions], -1)) + self.spread * noise
        reward, logit = self.readout(after).unbind(-1)
        return {"x": after}, reward, logit

    def _decode(self, state: State) -> Tensor:
        return state["x"]

    def loss(
        self, scenes: SceneBatch, progress: float, generator: torch.Generator | None
    ) -> Losses:
        segment = take_segment(scenes, self.spec, self.config.frames - 1)
        x = self.move(torch.cat([segment.observations[:, :-1], segment.actions], -1))
        likelihood = torch.distributions.Normal(x, self.spread.abs())
        nll = -likelihood.log_prob(segment.observations[:, 1:]).sum(-1)
        readouts, variance = self.readout(x).unbind(-1), self.config.reward_variance
        return losses(
            segment, x, torch.zeros_like(nll), readouts, self.reward_scale, variance, nll=nll
        )


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Linear, {"vector": LinearConfig()})
    yield
    del MODELS["linear"]


def fresh(spec: Spec = VECTOR) -> Linear:
    model = make("linear", spec)
    assert isinstance(model, Linear)
    return model


def recorded(episodes: int = 8, steps: int = 12) -> Episodes:
    """A damped point that the action pushes; the reward is its position."""
    random = np.random.default_rng(0)
    every = []
    for _ in range(episodes):
        x = random.normal(size=VECTOR.observation).astype(np.float32)
        observations, rewards = [x], []
        actions = random.integers(3, size=steps)
        for action in actions:
            x = (0.9 * x + 0.1 * (action - 1)).astype(np.float32)
            observations.append(x)
            rewards.append(x[0])
        every.append(Episode(np.stack(observations), actions, np.float32(rewards), False))
    return Episodes(every, VECTOR.action)


def test_the_promises_of_every_world_model() -> None:
    check_world_model(fresh, VECTOR)


def test_trains_by_fit(tmp_path: Path) -> None:
    """Validation's free-running error included."""
    model = fresh()
    windows = recorded().windows(VECTOR.window, 8)
    batch = windows.batch(0)
    before = float(model.loss(batch, 0.0, generator()).parts["mse"])
    fit(model, windows, 60, folder=tmp_path / "model", progress=False)
    after = float(model.loss(batch, 1.0, generator()).parts["mse"])
    assert after < 0.3 * before
    assert free_running(model, batch, generator()) is not None


@torch.no_grad()
def test_shapes_and_the_present() -> None:
    """Ragged presents, plans, and the observation at which ``advance`` ends."""
    model = fresh()
    batch = recorded(2).windows(VECTOR.window, 2).batch(0)
    times = torch.arange(4).expand(2, -1)
    observations, present = batch.observations(times), torch.tensor([3, 1])
    given = Context(observations, times, batch.actions, times <= present[:, None], present)
    worlds = model.sample(model.observe(given), 3, generator())
    plans = batch.actions[:, None, :4].expand(-1, 2, *[-1] * (batch.actions.dim() - 1))
    queries = Queries(torch.tensor([[3, 5], [1, 4]]), plans)
    answer = model.predict(worlds, queries).observations
    assert answer is not None and answer.shape == (2, 3, 2, 2, *VECTOR.observation)
    now = at_times(observations, present)[:, None, None]
    assert torch.equal(answer[:, :, :, 0], now.expand(-1, 3, 2, -1))
    moved = model.advance(worlds, batch.actions[:, :2])
    later = model.predict(moved, Queries(torch.tensor([[5], [3]]))).observations
    assert later is not None
    torch.testing.assert_close(later.flatten(1, -2)[0], answer[0, :, 0, 1])
