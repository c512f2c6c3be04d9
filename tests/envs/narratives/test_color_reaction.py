"""A touch changes a colour, by chance or by a rule."""

from __future__ import annotations

import pytest
import torch

from envs import play
from envs.narratives.color_reaction import GOAL, REAGENTS, SHIFTS, ColorReaction
from envs.narratives.motion import distances
from envs.narratives.shapes import bounding_radii


def test_nature_acts_in_frames_one_to_six_and_the_colour_stays():
    story, ids = ColorReaction(controlled=False), torch.arange(200)
    batch = play(story, ids, torch.zeros(200, 11, dtype=torch.int64))
    path, colours = batch.trajectory.positions[:, :, 1], batch.trajectory.colours
    steps = (path[:, 1:6] - path[:, :5]).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 5), atol=1e-6, rtol=1e-4)
    assert (path[:, 5:] == path[:, 5:6]).all()
    assert (colours[:, :6] == colours[:, :1]).all()
    assert (colours[:, 6:, 0] == batch.start().products).all()
    assert (colours[:, 6:, 0] != colours[:, :1, 0]).all()
    assert (colours[..., 1] == colours[:, :1, 1]).all()
    assert batch.terminated.float().argmax(1).eq(10).all()
    assert (batch.rewards == 0).all()


def test_natures_new_colour_is_uniform():
    start = ColorReaction(controlled=False).begin(torch.arange(11_000))
    shift = (start.products[:, 0] - start.colours[:, 0]) % 12
    counts = torch.bincount(shift, minlength=12)
    assert counts[0] == 0
    assert ((counts[1:] - 1000.0).square() / 1000).sum() < 29.6  # 10 dof: p = 0.001


def test_shapes_touch_and_stay_visible():
    story = ColorReaction(controlled=False)
    state = play(story, torch.arange(300), torch.zeros(300, 6, dtype=torch.int64)).trajectory
    gap = distances(state.positions[:, 6, 0], state.positions[:, 6, 1])
    reach = bounding_radii(state.kinds[:, 0], state.sizes[:, 0]).sum(1)
    torch.testing.assert_close(gap, 0.9 * reach, atol=1e-5, rtol=1e-4)


def test_an_agents_scene():
    start = ColorReaction().begin(torch.arange(3000))
    assert (start.kinds[:, :REAGENTS] == torch.arange(REAGENTS)).all()
    products = (start.colours[:, -1:] + torch.tensor(SHIFTS)) % 12
    assert torch.equal(start.products, products)
    goals = (products == start.colours[:, GOAL, None]).float()
    assert (goals.sum(1) == 1).all()
    assert ((goals.sum(0) - 1000).square() / 1000).sum() < 13.8  # 2 dof: p = 0.001
    own = start.colours[:, :REAGENTS, None]
    assert not (own == products[:, None]).any()
    gaps = distances(start.positions[:, :, None], start.positions[:, None])
    radii = bounding_radii(start.kinds, start.sizes)
    free = gaps - radii[:, None] - radii[:, :, None] + torch.eye(5)
    assert (free.flatten(1).amin(1) > 0).float().mean() > 0.99


@pytest.mark.parametrize("reagent", range(REAGENTS))
def test_the_right_reagent_brings_one(reagent):
    story, ids = ColorReaction(), torch.arange(100)
    batch = play(story, ids, torch.full((100, 20), reagent))
    right = batch.start().products[:, reagent] == batch.start().colours[:, GOAL]
    assert torch.equal(batch.rewards.sum(1), right.float())
    assert (batch.lengths == 6).all()
    assert torch.equal(batch.trajectory.colours[:, 6, reagent], batch.start().products[:, reagent])


def test_best_return_is_reached_and_gets_lost():
    story, ids = ColorReaction(), torch.arange(100)
    state = story.begin(ids)
    right = (state.products == state.colours[:, GOAL, None]).long().argmax(1)
    assert (story.best_return(state) == 1).all()
    wrong, total = state, torch.zeros(100)
    for _ in range(6):
        state, reward, _ = story.step(state, right)
        total += reward
        wrong = story.step(wrong, (right + 1) % 3)[0]
        assert (story.best_return(state) == (~state.ended).float()).all()
    assert (total == 1).all() and (story.best_return(wrong) == 0).all()
    short = ColorReaction(max_steps=5)
    assert (short.best_return(short.begin(ids)) == 0).all()


def test_changing_ones_mind_begins_a_new_leg():
    story = ColorReaction()
    batch = play(story, torch.arange(50), torch.tensor([[0] * 3 + [1] * 17]).expand(50, -1))
    assert (batch.lengths == 9).all()
    assert (batch.trajectory.colours[:, -1, 0] == batch.trajectory.colours[:, 0, 0]).all()


@pytest.mark.parametrize(
    ("kwargs", "error"), [({"controlled": 1}, TypeError), ({"max_steps": 0}, ValueError)]
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        ColorReaction(**kwargs)
