"""A model that averages what a coin decides is found out; one that tosses it is not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodel import ActionSpec, Episode, Episodes, Losses, SceneBatch, fit
from worldmodel.models.frame_by_frame.base import FrameByFrame, State
from worldmodel.training.validation import Validation, free_running


@dataclass(frozen=True)
class CoinConfig:
    width: float = 1.0
    learning_rate: float = 1e-3
    learning_rate_end: float = 1e-3


class Coin(FrameByFrame):
    """Imagines +-width by a coin, and the second number as it was."""

    name = "coin"
    takes_vectors = True
    feeds_back = False
    config: CoinConfig

    def __init__(self, spec: Any, config: CoinConfig) -> None:
        super().__init__(spec, config)
        self.noise_shape = (1,)
        self.weight = nn.Parameter(torch.ones(1))

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"still": observations[:, 0, 1:]}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        none = torch.zeros(len(noise))
        return {**state, "coin": noise.sign() * self.config.width}, none, none

    def _decode(self, state: State) -> Tensor:
        return torch.cat([state["coin"], state["still"]], -1)

    def loss(self, scenes: SceneBatch, progress: float, generator: Any) -> Losses:
        total = self.weight.square().sum()
        return Losses(total, {"loss": total.detach()})


def tosses(episodes: int, seed: int = 0) -> Episodes:
    """A number that a coin decides, and a large one that stays as it is."""
    random, recorded = np.random.default_rng(seed), []
    for _ in range(episodes):
        coin = random.choice([-1.0, 1.0], size=13)
        seen = np.stack([coin, np.full(13, 100 * random.normal())], 1).astype(np.float32)
        recorded.append(Episode(seen, np.zeros(12, int), np.zeros(12, np.float32), False))
    return Episodes(recorded, ActionSpec("discrete", (), (2,)))


@pytest.mark.parametrize(("width", "expected"), [(1.0, 1.0), (0.5, 0.5 / 0.79), (0.0, 0.0)])
def test_spread_is_one_if_worlds_differ_as_they_should(width: float, expected: float) -> None:
    """E (x - x')^2 = 2 width^2, E (x - y)^2 = 1 + width^2."""
    windows = tosses(40).windows(8, 64)
    model = Coin(tosses(1).spec(8), CoinConfig(width))
    measured = Validation(windows, 1, 0).measure(model)
    assert measured["spread"] == pytest.approx(expected, abs=0.05)


def test_what_is_explained_does_not_count() -> None:
    still = Episodes(
        [Episode(np.stack([e.observations[:, 1]] * 2, 1), e.actions, e.rewards, False)
         for e in tosses(40)], ActionSpec("discrete", (), (2,)),
    )  # fmt: skip
    model = Coin(still.spec(8), CoinConfig(0.0))
    model._decode = lambda state: state["still"].expand(-1, 2)  # type: ignore[method-assign]
    windows = still.windows(8, 64)
    assert "spread" not in Validation(windows, 1, 0).measure(model)
    found = free_running(model, windows.batch(0))
    assert found is not None and found.mse == 0 and found.variance.min() > 100


@pytest.mark.parametrize("validated", [False, True])
def test_fit_warns_of_averaged_chance(validated: bool) -> None:
    windows = tosses(40).windows(8, 16)
    settings = {"validation": tosses(40, 1).windows(8, 16)} if validated else {}
    for width, warns in ((0.0, True), (1.0, False)):
        model = Coin(tosses(1).spec(8), CoinConfig(width))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(model, windows, 500, progress=False, validate_every=500, **settings)  # type: ignore[arg-type]
        messages = [str(each.message) for each in caught if "by chance" in str(each.message)]
        assert len(messages) == int(warns), messages
