"""One side stays hidden until it is asked for, and can be read."""

from __future__ import annotations

import math

import pytest
import torch

from envs.dice import Views, hidden_face_views, look, read_face
from envs.dice.hidden_face import FRONT, facing_views, off_front
from envs.dice.scene import CAMERA_RADIUS, POOL, pool, visible_sides
from tests.envs.pictures import BLURS, blurred


def scenes(count, **settings):
    return Views(**settings).begin(torch.arange(count) + (1 << 40))


@pytest.mark.parametrize("contexts", [1, 3, 5, 10])
def test_the_hidden_side_is_hidden_in_all_of_a_thousand_scenes(contexts):
    state = scenes(1000)
    drawn = hidden_face_views(state, contexts)
    rows = torch.arange(1000)
    sides = visible_sides(state, drawn.context)
    assert not sides[rows, :, drawn.hidden].any()
    assert visible_sides(state, drawn.targets)[rows, :, drawn.hidden].all()
    shown = sides.any(1).sum(1)
    assert (shown <= 3).all() and (contexts < 3 or (shown == 3).all())
    assert torch.equal(drawn.digit, state.faces[rows, drawn.hidden])
    counts = torch.bincount(drawn.hidden, minlength=4)
    assert ((counts - 250.0).square() / 250).sum() < 16.3  # 3 dof: p = 0.001


def test_targets_see_it_from_the_front():
    state = scenes(1000)
    drawn = hidden_face_views(state)
    there = CAMERA_RADIUS * torch.stack([drawn.targets.cos(), drawn.targets.sin()], -1)
    way = there - state.centre[:, None]
    angle = torch.atan2(way[..., 1], way[..., 0])
    off = angle - (state.turn + drawn.hidden * math.pi / 2)[:, None]
    off = torch.atan2(off.sin(), off.cos()).abs()
    assert off.max() <= FRONT + 1e-3 and off.mean() > FRONT / 3


def test_how_far_off_the_front() -> None:
    state = scenes(64)
    for side in range(4):
        sides = torch.full((64,), side)
        camera = facing_views(state, sides, 4, seed=side)
        off = off_front(state, camera, sides)
        assert FRONT * 0.8 < off.max() <= FRONT + 1e-5 and off.min() < 0.1
        opposite = off_front(state, camera, (sides + 2) % 4)
        torch.testing.assert_close(off + opposite, torch.full_like(off, math.pi), atol=1e-4, rtol=0)


def test_draws_are_named():
    state = scenes(8)
    one, again = hidden_face_views(state), hidden_face_views(state)
    assert torch.equal(one.context, again.context) and torch.equal(one.targets, again.targets)
    assert not torch.equal(one.context, hidden_face_views(state, seed=1).context)
    alone = hidden_face_views(state.map(lambda value: value[3:4]))
    torch.testing.assert_close(alone.context, one.context[3:4])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("width", BLURS)
def test_the_digit_can_be_read(size, width):
    state = scenes(12)
    drawn = hidden_face_views(state, targets=2)
    frames = blurred(look(state, drawn.targets, size), width)
    found = read_face(frames, state, drawn.targets, drawn.hidden)
    digits, classes = (0.1, 0.4) if (size, width) == (32, 5) else (0.95, 0.99)
    assert (found == drawn.digit[:, None]).float().mean() >= digits
    labels = pool().labels
    assert (labels[found] == labels[drawn.digit][:, None]).float().mean() >= classes


def test_unseen_digits_are_read_among_their_own():
    state = scenes(3, test_digits="unseen")
    drawn = hidden_face_views(state, targets=1)
    found = read_face(look(state, drawn.targets, 64), state, drawn.targets, drawn.hidden)
    assert (found >= POOL).all() and torch.equal(found[:, 0], drawn.digit)


def test_bad_input():
    state = scenes(2)
    with pytest.raises(ValueError, match="contexts"):
        hidden_face_views(state, contexts=0)
    with pytest.raises(ValueError, match="targets"):
        hidden_face_views(state, targets=0)
    with pytest.raises(ValueError, match="frames"):
        read_face(torch.zeros(2, 1, 64, 64, 3), state, torch.zeros(2, 2), torch.zeros(2).long())
