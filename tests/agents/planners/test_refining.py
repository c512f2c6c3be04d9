"""CEM and MPPI, and the distribution over plans that they refine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, frames
from torch import Tensor

from agents import Cem, CemConfig, Mppi, MppiConfig, Planner, RandomShooting, RandomShootingConfig
from agents.imagination import Imagination
from agents.planners.distribution import PlanDistribution
from worldmodel.spec import ActionSpec, Spec

KINDS = {
    "discrete": ActionSpec("discrete", (), (4,)),
    "multi_discrete": ActionSpec("multi_discrete", (2,), (2, 3)),
    "multi_binary": ActionSpec("multi_binary", (3,)),
    "box": ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 5.0)),
}
EVERY = pytest.mark.parametrize("spec", KINDS.values(), ids=list(KINDS))
BOTH = pytest.mark.parametrize(("planner", "config"), [(Cem, CemConfig), (Mppi, MppiConfig)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Hill(FakeModel):
    """The reward of a step is minus the squared distance of a box action from a target."""

    target = torch.tensor([0.3, 4.2])

    def __init__(self) -> None:
        super().__init__(Spec(SPEC.observation, KINDS["box"], 12))

    def predict(self, worlds: Any, queries: Any, frames: bool = True) -> Any:
        found = super().predict(worlds, queries, frames)
        assert queries.actions is not None
        height = -(queries.actions - self.target).square().sum(-1)  # (B, N, L)
        rewards = height[:, None].expand(-1, worlds.shape[1], -1, -1)
        return type(found)(None, rewards, torch.ones_like(rewards))


# -- the distribution -----------------------------------------------------------------------------


@EVERY
def test_uniform_plans_lie_in_the_space_and_fill_it(spec: ActionSpec) -> None:
    told = PlanDistribution.uniform(spec, 2, 3, torch.device("cpu"))
    plans = told.sample(500, generator())
    assert plans.shape == (2, 500, 3, *spec.shape)
    space = spec.to_space()
    assert all(space.contains(np.asarray(plan, space.dtype)) for plan in plans[0, :50, 0].numpy())
    if spec.kind != "box":
        counts = spec.categories or (2,) * spec.features
        flat = plans.reshape(-1, len(counts))
        for entry, count in zip(flat.unbind(-1), counts, strict=True):
            share = torch.bincount(entry.reshape(-1).long(), minlength=count) / len(entry)
            assert (share - 1 / count).abs().max() < 0.05
    assert torch.equal(told.sample(9, generator(3)), told.sample(9, generator(3)))


@EVERY
def test_fitted_to_one_plan_it_draws_that_plan(spec: ActionSpec) -> None:
    told = PlanDistribution.uniform(spec, 2, 3, torch.device("cpu"))
    plans = told.sample(6, generator())
    weights = torch.zeros(2, 6)
    weights[0, 4] = weights[1, 1] = 1
    wanted = torch.stack([plans[0, 4], plans[1, 1]])
    again = told.fitted(plans, weights, momentum=0.0, min_spread=0.0).sample(5, generator(1))
    assert torch.equal(again, wanted[:, None].expand_as(again))
    loose = told.fitted(plans, weights, momentum=0.0, min_spread=0.5).sample(50, generator(1))
    assert not torch.equal(loose, wanted[:, None].expand_as(loose))


def test_moments_and_shares_are_weighted() -> None:
    box = PlanDistribution.uniform(KINDS["box"], 1, 1, torch.device("cpu"))
    plans = torch.tensor([[[[0.0, 1.0]], [[1.0, 3.0]]]])
    weights = torch.tensor([[0.25, 0.75]])
    fitted = box.fitted(plans, weights, momentum=0.0, min_spread=0.0)
    torch.testing.assert_close(fitted.centre[0, 0], torch.tensor([0.75, 2.5]))
    assert fitted.spread is not None and box.spread is not None
    torch.testing.assert_close(fitted.spread[0, 0], torch.tensor([0.75**0.5 / 2, 0.75**0.5]))
    kept = box.fitted(plans, weights, momentum=0.5, min_spread=0.0)
    torch.testing.assert_close(kept.centre, (fitted.centre + box.centre) / 2)
    assert kept.spread is not None
    torch.testing.assert_close(kept.spread, (fitted.spread + box.spread) / 2)
    choices = PlanDistribution.uniform(KINDS["discrete"], 1, 1, torch.device("cpu"))
    shares = choices.fitted(
        torch.tensor([[[3], [0]]]), weights, momentum=0.2, min_spread=0.1
    ).centre
    expected = 0.9 * (0.8 * torch.tensor([0.75, 0, 0, 0.25]) + 0.05) + 0.025
    torch.testing.assert_close(shares[0, 0, 0], expected)


# -- the planners ---------------------------------------------------------------------------------


@BOTH
def test_finds_the_rewarding_action(planner: Any, config: Any) -> None:
    found = planner(FakeModel(), config(plans=16, iterations=4, horizon=2, hold=3))
    actions, _ = found.predict(frames(0, 1, 2, 3))
    assert actions.tolist() == [0, 1, 2, 3]
    assert found.last.chosen.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert found.last.actions.shape == (4, 65, 2) and found.last.scores.shape == (4, 65)


@BOTH
def test_refining_beats_drawing_as_many_at_once(planner: Any, config: Any) -> None:
    """On a hill over six numbers; both draw 200 plans."""

    def best(agent: Planner) -> float:
        agent.predict(np.repeat(frames(0), 8, 0))
        assert agent.last is not None
        return float(agent.last.scores.max(1).mean())

    refined = best(planner(Hill(), config(plans=40, iterations=5, horizon=3)))
    drawn = best(RandomShooting(Hill(), RandomShootingConfig(plans=200, horizon=3)))
    assert refined > 0.3 * drawn  # scores are below 0


@BOTH
@pytest.mark.parametrize("kind", [*KINDS])
def test_every_kind_of_action(planner: Any, config: Any, kind: str) -> None:
    model = FakeModel(Spec(SPEC.observation, KINDS[kind], 12))
    agent = planner(model, config(plans=16, iterations=3, horizon=2, hold=2))
    actions, state = agent.predict(frames(0, 1))
    actions, state = agent.predict(frames(0, 1), state)
    assert all(KINDS[kind].to_space().contains(action) for action in actions)


@BOTH
def test_weights_prefer_better_plans(planner: Any, config: Any) -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0], [7.0, 7.0, 7.0, 7.0]])
    weights: Tensor = planner(FakeModel()).weights(scores)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert weights[0].argmax() == 1 and (weights >= 0).all()
    if planner is Mppi:
        torch.testing.assert_close(weights[1], torch.full((4,), 0.25))
    half = Cem(FakeModel(), CemConfig(elites=0.5)).weights(scores)
    assert half[0].tolist() == [0.0, 0.5, 0.5, 0.0]


@pytest.mark.parametrize("start", [False, True])
def test_warm_start_keeps_what_is_left_of_the_plan(start: bool) -> None:
    config = RandomShootingConfig(plans=5, horizon=4, warm_start=True)
    planner = RandomShooting(FakeModel(), config)
    _, state = planner.predict(frames(0, 1))
    assert planner.last is not None
    before = planner.last.chosen
    planner.predict(frames(0, 1), state, np.array([False, start]))
    first = planner.last.actions[:, 0]
    assert first[0, :3].tolist() == before[0, 1:].tolist()
    assert (first[1, :3].tolist() == before[1, 1:].tolist()) is not start


def test_risk_counts_the_worst_worlds() -> None:
    """In a world whose wanted action is unknown an action pays in a quarter of the worlds."""
    imagination = Imagination(FakeModel(seen=False), seed=1)
    imagination.reset(frames(0))
    worlds = imagination.worlds(200)
    plans = np.arange(4).reshape(1, 4, 1)
    mean, half, most = (imagination.score(worlds, plans, risk=risk)[0] for risk in (1.0, 0.5, 0.9))
    assert mean.sum() == pytest.approx(1.0) and (half == 0).all()
    kept = 180 / 200
    torch.testing.assert_close(most, (mean - (1 - kept)).clamp_min(0) / kept)
    with pytest.raises(ValueError, match="risk: expected above 0"):
        imagination.score(worlds, plans, risk=0.0)


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        (RandomShootingConfig, {"risk": 0.0}), (CemConfig, {"iterations": 0}),
        (CemConfig, {"momentum": 1.0}), (CemConfig, {"min_spread": 1.5}),
        (CemConfig, {"elites": 0.0}),
        (MppiConfig, {"temperature": 0.0}), (MppiConfig, {"plans": 0}),
    ],
)  # fmt: skip
def test_config_rejects(config: Any, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        config(**bad)


def test_the_config_of_another_planner_is_refused() -> None:
    with pytest.raises(TypeError, match="config: expected a CemConfig, got MppiConfig"):
        Cem(FakeModel(), MppiConfig())
