"""Worlds laid out by member roll as one row after another does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel import Context, Queries, Spec, make
from worldmodel.models.frame_by_frame.base import FrameByFrame
from worldmodel.models.frame_by_frame.ensemble import Ensemble
from worldmodel.models.frame_by_frame.ensemble_config import EnsembleConfig
from worldmodel.models.frame_by_frame.ensemble_nets import Group
from worldmodel.models.frame_by_frame.ensemble_roll import MemberLayout
from worldmodel.spec import ActionSpec

SPEC = Spec((3,), ActionSpec("discrete", (), (3,)), 9, low=(-9.0,) * 3, high=(9.0,) * 3)


def ensemble(members: int = 4, elites: int = 3) -> Ensemble:
    config = EnsembleConfig(
        members, elites, layers=1, hidden=16, head_hidden=8, weight_decay=(0.0, 0.0)
    )
    model = make("ensemble", SPEC, config)
    assert isinstance(model, Ensemble)
    model.elites.copy_(torch.tensor([0, 2, 3])[:elites])
    return model.eval()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("categorical", [False, True])
def test_the_same_as_one_row_after_another(
    count: int, categorical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ensemble()
    if categorical:
        model.categories.set([Group((1, 1, 1), (-1.0, 0.0, 1.0))])
        model.gaussian[1] = False
    draws = torch.Generator().manual_seed(1)
    observations = torch.randn(2, 1, 3, generator=draws)
    observations[..., 1] = 0
    belief = model.observe(Context(observations, torch.zeros(2, 1, dtype=torch.long)))
    worlds = model.sample(belief, count, draws)
    plans = torch.randint(3, (2, 4, 7), generator=draws)
    queries = Queries(torch.tensor([[7, 0, 3], [1, 1, 5]]), plans)

    def answers() -> list[Tensor]:
        with torch.no_grad():
            answer, after = model.predict(worlds, queries), model.advance(worlds, plans[:, 1])
            scores = model.predict(worlds, queries, frames=False)
        assert answer.observations is not None and scores.observations is None
        assert torch.equal(scores.rewards, answer.rewards)
        return [answer.observations, answer.rewards, answer.alive, after.state["x"]]

    laid = answers()
    monkeypatch.setattr(Ensemble, "_roll", FrameByFrame._roll)
    for one, other in zip(laid, answers(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_pass_through_a_roll() -> None:
    model = ensemble()
    belief = model.observe(Context(torch.zeros(1, 1, 3), torch.zeros(1, 1, dtype=torch.long)))
    worlds = model.sample(belief, 3, torch.Generator().manual_seed(0))
    queries = Queries(torch.tensor([[4]]), torch.zeros(1, 2, 4, dtype=torch.long))
    model.predict(worlds, queries).rewards.sum().backward()
    for weight in model.dynamics.weights:
        assert weight.grad is not None and weight.grad[[0, 2, 3]].abs().sum() > 0
        assert weight.grad[1].abs().sum() == 0  # no elite


def test_each_member_has_a_row_and_each_world_its_position() -> None:
    member = torch.tensor([3, 0, 3, 3, 0, 2])
    layout = MemberLayout.of(member, 5)
    assert layout.members is not None and layout.members.tolist() == [0, 2, 3]
    assert layout.world.shape == (3, 3)
    flat = layout.lay(torch.arange(6) * 10).flatten()
    assert flat[layout.position].tolist() == [0, 10, 20, 30, 40, 50]
    rows = layout.members[layout.position // 3]
    assert torch.equal(rows, member)
    assert MemberLayout.of(torch.tensor([1, 0, 1, 0]), 2).members is None
