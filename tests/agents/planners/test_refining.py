"""CEM and MPPI, and the distribution over plans that they refine."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, frames
from torch import Tensor

from agents import (
    Cem,
    CemConfig,
    Mppi,
    MppiConfig,
    Planner,
    RandomAgent,
    RandomShooting,
    RandomShootingConfig,
)
from agents.actions import coloured_noise, draw_actions
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
    assert half[1].tolist() == [0.25] * 4  # as good as the last elite


class Cliff(FakeModel):
    """Each step earns 1. Who does not begin with 0 must do nothing else but 0 afterwards."""

    def _predict(self, worlds: Any, queries: Any, frames: bool) -> Any:
        answer = super()._predict(worlds, queries, frames)
        start, later = queries.actions[..., :1], queries.actions[..., 1:]
        falls = ((start > 0) & (later.amax(-1, keepdim=True) > 0)).float()
        logits = torch.where(falls.bool(), -30.0, 30.0)[:, None].expand_as(answer.logits)
        return type(answer)(torch.ones_like(answer.rewards), logits, answer.observations)


def test_where_many_plans_survive_the_mean_does_what_most_of_them_do() -> None:
    """Of 4 x 16 plans those that begin with 0 all survive, and of the others one in 16 does."""
    for seed in range(5):
        agent = Cem(Cliff(), CemConfig(plans=64, iterations=1, horizon=3, seed=seed))
        assert agent.predict(frames(3))[0].tolist() == [0]


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


# -- the plan that is carried out; noise ----------------------------------------------------------


@BOTH
def test_the_mean_of_the_last_plans_is_carried_out(planner: Any, config: Any) -> None:
    agent = planner(Hill(), config(plans=40, iterations=3, horizon=2, momentum=0.0))
    agent.predict(frames(0, 0))
    plans, scores = torch.from_numpy(agent.last.actions), torch.from_numpy(agent.last.scores)
    assert agent.last.best.tolist() == [120, 120]
    weights = agent.weights(scores[:, 80:120])
    mean = (weights[:, :, None, None] * plans[:, 80:120]).sum(1)
    torch.testing.assert_close(plans[:, 120], mean)
    torch.testing.assert_close(scores[:, 120], (weights * scores[:, 80:120]).sum(1))
    best = planner(Hill(), config(plans=40, iterations=3, horizon=2, choose="best"))
    best.predict(frames(0, 0))
    assert best.last.best.tolist() == best.last.scores.argmax(1).tolist()
    assert best.last.scores.shape == (2, 120)


@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "multi_binary"])
def test_the_mode_of_choices_is_the_most_frequent_one(kind: str) -> None:
    spec = KINDS[kind]
    uniform = PlanDistribution.uniform(spec, 1, 2, torch.device("cpu"))
    plans = uniform.sample(5, generator())
    plans[:, 1:4] = plans[:, :1]  # four of five are the same
    fitted = uniform.fitted(plans, torch.full((1, 5), 0.2), 0.0, 0.1)
    assert torch.equal(fitted.mode(), plans[:, :1])


def test_retained_plans_stay_candidates() -> None:
    """A plan that is far better than what comes next still counts among the last elites."""
    config = CemConfig(plans=10, iterations=2, horizon=1, elites=0.1, retained=0.1, momentum=0.0)
    agent = Cem(Hill(), config)
    agent.predict(frames(0))
    assert agent.last is not None
    scores = torch.from_numpy(agent.last.scores[0])
    assert scores[-1] == scores[:-1].max()  # one elite of both iterations
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match="retained: expected in"):
            CemConfig(retained=bad)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_is_standard_normal_and_its_neighbours_are_alike(exponent: float) -> None:
    noise = coloured_noise((4000, 16, 2), exponent, generator())
    assert noise.shape == (4000, 16, 2)
    assert noise.mean().abs() < 0.05 and (noise.var((0, 2)) - 1).abs().max() < 0.1
    alike = (noise[:, 1:] * noise[:, :-1]).mean()
    assert alike.abs() < 0.02 if exponent == 0 else alike > 0.4 * exponent
    assert (noise[..., 0] * noise[..., 1]).mean().abs() < 0.05
    ends = (noise[:, 0] * noise[:, -1]).mean()
    assert ends < alike + 0.02  # the end of a plan is not tied to its beginning


@EVERY
def test_coloured_plans_fill_the_space_as_others_do(spec: ActionSpec) -> None:
    plans = draw_actions(spec, (3000, 10), generator(), exponent=1.0)
    white = draw_actions(spec, (3000, 10), generator())
    assert plans.shape == white.shape and plans.dtype == white.dtype
    space = spec.to_space()
    assert all(space.contains(np.asarray(a, space.dtype)) for a in plans[:20, 0].numpy())
    ours, theirs = plans.float().flatten(0, 1), white.float().flatten(0, 1)
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.06, rtol=0.02)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=0.06, rtol=0.02)
    changes = (plans[:, 1:] != plans[:, :-1]).float().mean()
    if spec.kind != "box":
        assert changes < 0.9 * (white[:, 1:] != white[:, :-1]).float().mean()


def test_a_coloured_random_agent_holds_on() -> None:
    space = gym.spaces.Discrete(2)
    agent, state, actions = RandomAgent(space, 0, length=50, exponent=2.0), None, []
    for _ in range(200):
        action, state = agent.predict(np.zeros((8, 1), np.float32), state)
        actions.append(action)
    played = np.stack(actions)
    assert played.shape == (200, 8) and 0.3 < played.mean() < 0.7
    assert (played[1:] != played[:-1]).mean() < 0.2
    with pytest.raises(ValueError, match="length: expected at least 1"):
        RandomAgent(space, length=0)
