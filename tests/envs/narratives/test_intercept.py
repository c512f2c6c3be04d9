"""The salesman walks as nature's; the ring catches him where it waits."""

from __future__ import annotations

import itertools

import pytest
import torch

from envs import play
from envs.narratives.intercept import REACH, STEP, Intercept, ring_cover
from envs.narratives.motion import distances
from envs.narratives.traveling_salesman import ACTOR, TravelingSalesman


def test_the_salesman_is_natures():
    ids = torch.arange(50)
    actions = torch.randint(0, 5, (50, 20), generator=torch.Generator().manual_seed(0))
    ours = play(Intercept(), ids, actions)
    natures = play(TravelingSalesman(controlled=False), ids, torch.zeros_like(actions))
    assert torch.equal(ours.trajectory.positions, natures.trajectory.positions)
    assert torch.equal(ours.terminated, natures.terminated)


def test_a_ring_that_waits_at_a_city_earns_one():
    story, ids = Intercept(), torch.arange(100)
    batch = play(story, ids, torch.zeros(100, 20, dtype=torch.int64))
    start = batch.start()
    near = distances(start.positions[:, :ACTOR], start.ring[:, None]) <= REACH
    assert torch.equal(batch.rewards.sum(1), near.sum(1).float())
    assert near.any()


def test_moves_and_the_edge():
    story, ids = Intercept(), torch.arange(100)
    for action, way in enumerate(((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))):
        ring = play(story, ids, torch.full((100, 20), action)).trajectory.ring
        went = ring[:, 1:] - ring[:, :-1]
        still = (went == 0).all(-1)
        assert ((went - STEP * torch.tensor(way)).abs().amax(-1) < 1e-5)[~still].all()
        assert ((ring > 0.07) & (ring < 0.93)).all()


def test_best_return_by_trying_all():
    """The dynamic programme against all plans of a shorter story."""
    story, ids = Intercept(max_steps=7), torch.arange(30)
    plans = torch.tensor(list(itertools.product(range(5), repeat=5)))  # up to the first arrival
    best = torch.zeros(30)
    for plan in plans[torch.randperm(len(plans), generator=torch.Generator().manual_seed(0))]:
        actions = torch.cat([plan, torch.zeros(2, dtype=torch.int64)]).expand(30, -1)
        best = torch.maximum(best, play(story, ids, actions).rewards.sum(1))
    assert torch.equal(best, story.best_return(story.begin(ids)))
    whole = Intercept()
    value = whole.best_return(whole.begin(torch.arange(500)))
    assert value.max() <= 4 and 2 < value.mean() < 4


def test_the_ring_is_a_ring():
    cover = ring_cover(torch.tensor([[0.5, 0.5]]), 64, 64)[0]
    assert cover[32, 32] == 0 and cover[0, 0] == 0 and cover.max() == 1
    assert cover[32].gt(0.5).sum() == 2 * cover[32, :32].gt(0.5).sum()
    frames = Intercept().render(Intercept().begin(torch.arange(4)), 64)
    assert frames.dtype == torch.uint8 and frames.shape == (4, 64, 64, 3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="controlled"):
        Intercept(controlled=False)
    with pytest.raises(TypeError, match="controlled"):
        Intercept(controlled="no")
