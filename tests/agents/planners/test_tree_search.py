"""Tree search: its budget, what it refuses, and that it beats drawing as many plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeModel, frames
from torch import Tensor

from agents import Planner, RandomShooting, RandomShootingConfig, TreeSearch, TreeSearchConfig
from agents import actions as action_border
from worldmodel.spec import ActionSpec, Spec
from worldmodel.types import Queries, StepPrediction, Worlds

KINDS = {
    "discrete": ActionSpec("discrete", (), (4,)),
    "multi_discrete": ActionSpec("multi_discrete", (2,), (2, 3)),
    "square": ActionSpec("multi_discrete", (2, 1), (2, 3)),
    "multi_binary": ActionSpec("multi_binary", (3,)),
}
EVERY = pytest.mark.parametrize("spec", KINDS.values(), ids=list(KINDS))


class Ring(FakeModel):
    """Thirty places in a ring; each action walks another way, and some places pay."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.ways = torch.tensor([-1, 1, -2, 3])
        pays = torch.rand(30, generator=generator) < 0.1
        self.pay = pays * torch.rand(30, generator=generator)

    def _predict(self, worlds: Worlds, queries: Queries, frames: bool) -> StepPrediction:
        assert queries.actions is not None
        place = self.ways[queries.actions].cumsum(-1) % 30
        rewards = self.pay[place].unsqueeze(1).expand(-1, worlds.shape[1], -1, -1)
        return StepPrediction(rewards, torch.full_like(rewards, torch.inf), None)


@EVERY
def test_all_choices_once(spec: ActionSpec) -> None:
    every = action_border.all_choices(spec, torch.device("cpu"))
    assert len(every) == action_border.count_choices(spec) == len(every.unique(dim=0))
    space = spec.to_space()
    assert all(space.contains(np.asarray(one, space.dtype)) for one in every.numpy())
    assert action_border.count_choices(ActionSpec("box", (1,), (), (0.0,), (1.0,))) is None


@EVERY
def test_with_plans_enough_all_are_scored_once(spec: ActionSpec) -> None:
    model = FakeModel(Spec(SPEC.observation, spec, 12))
    count = action_border.count_choices(spec)
    assert count is not None
    planner = TreeSearch(model, TreeSearchConfig(plans=count**2, horizon=2, worlds=1))
    planner.predict(frames(0, 1))
    assert planner.last is not None and len(model.asked) == 1
    for row in planner.last.actions:
        assert len(np.unique(row.reshape(count**2, -1), axis=0)) == count**2


@pytest.mark.parametrize("plans", [32, 33, 100, 999])
def test_keeps_to_its_budget_on_few_calls(plans: int) -> None:
    model = FakeModel()
    planner = TreeSearch(model, TreeSearchConfig(plans=plans, horizon=8, worlds=1))
    planner.predict(frames(0, 1, 2))
    assert planner.last is not None
    assert 0.8 * plans <= planner.last.scores.shape[1] <= plans
    assert len(model.asked) <= 8
    best = planner.last.scores[np.arange(3), planner.last.best]
    assert (best == planner.last.scores.max(1)).all()


def test_beats_drawing_as_many_plans() -> None:
    def found(kind: type[Planner], config: Any) -> Tensor:
        scores = []
        for seed in range(12):
            planner = kind(Ring(seed), config(plans=128, horizon=8, worlds=1, seed=seed))
            planner.predict(frames(0))
            assert planner.last is not None
            scores.append(float(planner.last.scores.max()))
        return torch.tensor(scores)

    grown = found(TreeSearch, TreeSearchConfig)
    drawn = found(RandomShooting, RandomShootingConfig)
    assert grown.mean() > 1.05 * drawn.mean()


def test_scenes_are_searched_side_by_side() -> None:
    planner = TreeSearch(FakeModel(), TreeSearchConfig(plans=64, horizon=4))
    actions, _ = planner.predict(frames(0, 1, 2, 3))
    assert actions.tolist() == [0, 1, 2, 3]
    assert planner.last is not None
    assert planner.last.chosen.tolist() == [[a] * 4 for a in range(4)]


@EVERY
def test_warm_start_tries_what_is_left_of_the_plan(spec: ActionSpec) -> None:
    model = FakeModel(Spec(SPEC.observation, spec, 12))
    planner = TreeSearch(model, TreeSearchConfig(plans=40, horizon=5, warm_start=True))
    _, state = planner.predict(frames(1, 1))
    assert planner.last is not None
    before = planner.last.chosen
    planner.predict(frames(1, 1), state, np.array([False, False]))
    for row, left in zip(planner.last.actions, before[:, 1:], strict=True):
        begun = (row[:, :4] == left).reshape(len(row), -1).all(1)
        assert begun.any()


def test_same_seed_same_search() -> None:
    def run(seed: int) -> np.ndarray:
        planner = TreeSearch(Ring(0), TreeSearchConfig(plans=60, horizon=8, seed=seed))
        planner.predict(frames(0))
        assert planner.last is not None
        return planner.last.actions

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.array_equal(run(0), run(1))


def test_refuses_what_it_cannot_search() -> None:
    box = ActionSpec("box", (1,), (), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="box.*Cem or Mppi"):
        TreeSearch(FakeModel(Spec(SPEC.observation, box, 12)))
    many = ActionSpec("multi_binary", (40,))
    with pytest.raises(ValueError, match="plans: expected at least"):
        TreeSearch(FakeModel(Spec(SPEC.observation, many, 12)))
    with pytest.raises(ValueError, match="at least 16, one for each of 4 actions on 4 levels"):
        TreeSearch(FakeModel(), TreeSearchConfig(plans=15, horizon=4))
