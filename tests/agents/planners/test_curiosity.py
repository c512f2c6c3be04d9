"""Plans for what is to be learned by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, frames

import agents
from agents import CemConfig, Imagination, RandomShooting, RandomShootingConfig, evaluate
from agents.curiosity import PlanCuriosity
from agents.training.online_planning import OnlineConfig, train_planner
from worldmodel import Spec, make
from worldmodel.models.frame_by_frame.ensemble_config import EnsembleConfig

UNSURE = 3
"""The action whose outcome worlds disagree about."""


class Unsure(FakeModel):
    """Action 3 shows something else in each world; action 2 is rewarded."""

    def __init__(self) -> None:
        super().__init__(SPEC, seen=False)

    def predict(self, worlds: Any, queries: Any, frames: bool = True) -> Any:
        found = super().predict(worlds, queries, frames)
        assert queries.actions is not None
        rewards = (queries.actions == 2).float()[:, None].expand_as(found.rewards)
        if not frames:
            return replace(found, rewards=rewards)
        shown = (queries.actions == UNSURE).float().cumsum(2)[:, None]  # (B, 1, N, L)
        shown = shown * (1 + worlds.state["wanted"][:, :, None, None])
        shape = found.observations.shape
        return replace(
            found, rewards=rewards, observations=shown[..., None, None, None].expand(shape).clone()
        )


def curiosity(observations: torch.Tensor, running: torch.Tensor, parts: int = 1) -> torch.Tensor:
    gathered = PlanCuriosity()
    for some in zip(observations.chunk(parts, 2), running.chunk(parts, 2), strict=True):
        gathered.add(*some)
    return gathered.disagreement()


def test_disagreement_is_a_share_of_all_differences() -> None:
    """Two worlds, two plans, one step, two numbers of which one never changes."""
    observations = torch.tensor([[[5.0, 7], [1, 7]], [[5, 7], [3, 7]]]).view(1, 2, 2, 1, 2)
    whole = np.std([5, 1, 5, 3])
    running = torch.ones(1, 2, 2, 1)
    expected = torch.tensor([[0.0, 1 / whole]], dtype=torch.float32)
    torch.testing.assert_close(curiosity(observations, running), expected)
    torch.testing.assert_close(curiosity(observations * 1e-3, running), expected)
    assert not curiosity(torch.ones(1, 2, 3, 1, 2), torch.ones(1, 2, 3, 1)).any()


def test_what_follows_an_end_does_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    observations = torch.randn(2, 4, 6, 3, 5, generator=random)
    running = torch.ones(2, 4, 6, 3)
    running[:, :, 0, 1:] = 0
    whole, ended = (
        curiosity(observations, torch.ones_like(running)),
        curiosity(observations, running),
    )
    assert (ended[:, 0] < 0.6 * whole[:, 0]).all() and torch.equal(ended[:, 1:], whole[:, 1:])
    torch.testing.assert_close(curiosity(observations, running, parts=3), ended)


@pytest.mark.parametrize(("amount", "chosen"), [(0.0, 2), (100.0, UNSURE)])
def test_a_curious_planner_tries_what_it_is_unsure_of(amount: float, chosen: int) -> None:
    model = Unsure()
    config = RandomShootingConfig(plans=60, worlds=4, horizon=1, curiosity=amount)
    planner = RandomShooting(model, config)
    action, _ = planner.predict(frames(0))
    assert action.tolist() == [chosen]
    assert any(rendered for _, _, rendered in model.asked) == (amount > 0)


def test_scores_gain_in_proportion_and_do_not_depend_on_the_chunk() -> None:
    plans = torch.randint(0, 4, (1, 30, 3), generator=torch.Generator().manual_seed(1)).numpy()
    scores = []
    for amount, chunk in ((0.0, 4096), (1.0, 4096), (2.0, 4096), (2.0, 8)):
        imagination = Imagination(Unsure(), 0, chunk=chunk)
        imagination.reset(frames(0))
        scores.append(imagination.score(imagination.worlds(4), plans, curiosity=amount))
    torch.testing.assert_close(scores[2] - scores[0], 2 * (scores[1] - scores[0]))
    torch.testing.assert_close(scores[3], scores[2])


def test_refuses_what_cannot_disagree() -> None:
    for bad in ({"curiosity": -1.0}, {"curiosity": 1.0, "worlds": 1}):
        with pytest.raises(ValueError, match="curiosity"):
            RandomShootingConfig(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coarse=None"):
        RandomShootingConfig(curiosity=1.0, coarse=1)
    with pytest.raises(ValueError, match=r"worlds of this copy-last are all alike.*make\(\"ens"):
        RandomShooting(make("copy-last", SPEC), RandomShootingConfig(curiosity=1.0))
    imagination = Imagination(FakeModel(), 0)
    imagination.reset(frames(0))
    for worlds, amount in ((1, 1.0), (2, -1.0), (2, float("nan"))):
        with pytest.raises(ValueError, match="curiosity: expected at least 0, and 2 worlds"):
            imagination.score(imagination.worlds(worlds), np.zeros((1, 1, 1)), curiosity=amount)


def test_train_planner_explores_with_it_and_plays_without() -> None:
    with gym.make("CartPole-v1") as env:
        spec = Spec.from_spaces(env.observation_space, env.action_space, 10)
        model = make("ensemble", spec, EnsembleConfig(hidden=16))
        planner = CemConfig(plans=8, worlds=3, horizon=5, iterations=2, curiosity=1.0)
        config = OnlineConfig(start_steps=40, refit_every=20, first_fit_steps=10, fit_steps=5)
        result = train_planner(model, env, 80, planner, config, progress=False)
    assert isinstance(result.planner, agents.Cem) and result.planner.config.curiosity == 0
    assert evaluate(result.planner, "CartPole-v1", 1) >= 1
