"""Who chases whom, how fast, and what a catch means."""

from __future__ import annotations

import pytest
import torch

from envs import play
from envs.narratives.dag_chase import (
    AGENT_SPEED,
    NATURE_SPEED,
    ROOT,
    ROOT_SPEED,
    DAGChase,
    DAGChaseState,
    touches,
)
from envs.narratives.motion import STEERING, distances


def flee(story: DAGChase, state: DAGChaseState, ahead: int = 6) -> torch.Tensor:
    """A good action for each scene, ``(B,)`` int64: look some steps ahead with the simulator.

    Each action is held for ``ahead`` steps; the one that keeps the nearest shape farthest, and the
    middle of the canvas near, wins. It uses what an agent does not know: who chases whom.
    """
    scores = []
    for action in range(len(STEERING)):
        held = torch.full_like(state.scene_ids, action)
        later, worst = state, torch.full_like(state.angle, torch.inf)
        for _ in range(ahead):
            later = story.step(later, held)[0]
            gap = distances(later.positions[:, :ROOT], later.positions[:, ROOT:]).amin(1)
            worst = torch.minimum(worst, gap - later.ended.to(torch.float32))
        off = distances(later.positions[:, ROOT], torch.full_like(later.positions[:, ROOT], 0.5))
        scores.append(worst - 0.2 * off)
    return torch.stack(scores, 1).argmax(1)


def test_the_graph_has_one_root_and_no_circle():
    parents = DAGChase(controlled=False).begin(torch.arange(6000)).parents
    assert (parents[:, ROOT] == -1).all() and (parents[:, :ROOT] >= 0).all()
    at = torch.arange(ROOT).expand(6000, -1)
    for _ in range(3):  # everybody's way up ends at the root
        at = torch.where(at == ROOT, ROOT, parents.gather(1, at.clamp(max=ROOT)))
    assert (at == ROOT).all()
    # Three chasers in random order: chances of 1, 1/2, 1/3 to chase the root, 11/18 on average.
    assert ((parents[:, :ROOT] == ROOT).float().mean(0) - 11 / 18).abs().max() < 0.03


def test_chasers_go_straight_for_their_prey():
    story = DAGChase(controlled=False)
    batch = play(story, torch.arange(100), torch.zeros(100, 20, dtype=torch.int64))
    places, parents = batch.trajectory.positions, batch.start().parents
    for t in range(20):
        here, there = places[:, t, :ROOT], places[:, t + 1, :ROOT]
        prey = places[:, t].gather(1, parents[:, :ROOT, None].expand(-1, -1, 2))
        moved = distances(there, here)
        assert (moved <= NATURE_SPEED + 1e-5).all()
        nearer = distances(here, prey) - distances(there, prey)
        torch.testing.assert_close(moved, nearer, atol=1e-4, rtol=0)
    root = places[:, :, ROOT]
    assert (distances(root[:, 1:], root[:, :-1]) <= ROOT_SPEED * 1.5).all()
    assert ((root > 0.1) & (root < 0.9)).all(-1)[:, 5:].float().mean() > 0.9
    assert not batch.terminated.any() and (batch.rewards == 0).all()


def test_an_agent_steers_the_white_circle_until_it_is_caught():
    story, ids = DAGChase(), torch.arange(200)
    start = story.begin(ids)
    assert (start.colours[:, ROOT] == 11).all() and (start.colours[:, :ROOT] != 11).all()
    assert (start.kinds[:, ROOT] == 0).all()
    batch = play(story, ids, torch.zeros(200, 40, dtype=torch.int64))  # it stays
    assert (batch.trajectory.positions[:, :, ROOT] == start.positions[:, None, ROOT]).all()
    ended = batch.terminated.any(1)
    assert ended.all()  # somebody always chases it
    survived = (batch.lengths - 1).float() / 40
    torch.testing.assert_close(batch.rewards.sum(1), survived)
    last = batch.moments(batch.lengths[:, None])
    assert touches(last).all()
    steps = distances(batch.trajectory.positions[:, 1, :ROOT], start.positions[:, :ROOT])
    assert (steps <= AGENT_SPEED + 1e-5).all()


def test_the_canvas_ends_somewhere():
    batch = play(DAGChase(), torch.arange(100), torch.full((100, 40), 4))  # right
    assert (batch.trajectory.positions[:, :, ROOT, 0] <= 0.9201).all()


def test_skill_pays():
    story, ids = DAGChase(), torch.arange(100) + 2**40
    state, total = story.begin(ids), torch.zeros(100)
    best = story.best_return(state)
    for _ in range(40):
        state, reward, _ = story.step(state, flee(story, state))
        total += reward
    random = torch.randint(0, 5, (100, 40), generator=torch.Generator().manual_seed(0))
    assert total.mean() > play(story, ids, random).rewards.sum(1).mean() + 0.3
    assert (total <= best + 1e-6).all() and (best == 1).all()


@pytest.mark.parametrize(
    ("kwargs", "error"), [({"controlled": None}, TypeError), ({"max_steps": -1}, ValueError)]
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        DAGChase(**kwargs)
